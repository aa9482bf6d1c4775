#include "pipeline/media.h"

#include "base/alloc.h"
#include "io/audio_in.h"

struct em_media {
    em_image image;
    em_audio sound;
    float *mono;
    char *image_path, *audio_path;
};

em_status em_media_begin(em_media **out, const char *image_path, const char *audio_path,
                         em_err *err)
{
    em_media *m = em_alloc(sizeof *m);
    if (!m) return em_fail(err, EM_NOMEM, "no memory");
    m->image_path = em_strdup(image_path);
    m->audio_path = em_strdup(audio_path);
    *out = m;
    return EM_OK;
}

em_status em_media_wait(em_media *m, em_err *err)
{
    if (m->mono) return EM_OK;
    em_status st = em_image_load(&m->image, m->image_path, EM_IMAGE_UPRIGHT, err);
    if (!st) st = em_audio_load(&m->sound, m->audio_path, NULL, err);
    return st ? st : em_audio_mono(&m->mono, &m->sound, err);
}

void em_media_close(em_media **media)
{
    em_media *m = *media;
    if (!m) return;
    em_image_free(&m->image);
    em_audio_free(&m->sound);
    em_free(m->mono);
    em_free(m->image_path);
    em_free(m->audio_path);
    em_free(m);
    *media = NULL;
}

const em_image *em_media_image(const em_media *m)
{
    return &m->image;
}
const em_audio *em_media_audio(const em_media *m)
{
    return &m->sound;
}
em_picture em_media_picture(const em_media *m)
{
    return (em_picture){m->image.rgb, m->image.width, m->image.height};
}
em_sound em_media_sound(const em_media *m)
{
    return (em_sound){m->mono, m->sound.n, m->sound.rate_hz};
}
const char *em_media_audio_path(const em_media *m)
{
    return m->audio_path;
}
