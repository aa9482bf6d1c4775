#include "io/media_sniff.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

/* One row a format: `magic` at `offset`. The first match wins, so longer magics of one family go
 * first. */
typedef struct signature {
    unsigned offset, len;
    const char *magic;
    em_media_kind kind;
    const char *name;
} signature;

#define SIG(offset, magic, kind, name)                                                             \
    {                                                                                              \
        offset, sizeof(magic) - 1, magic, EM_MEDIA_##kind, name                                    \
    }

static const signature signatures[] = {
    SIG(0, "\xff\xd8\xff", JPEG, "a JPEG picture"),
    SIG(0, "\x89PNG\r\n\x1a\n", PNG, "a PNG picture"),
    SIG(8, "WEBP", WEBP, "a WebP picture"), /* after RIFF and a size, checked below */
    SIG(0, "P6\n", PPM, "a PPM picture"),
    SIG(0, "P6 ", PPM, "a PPM picture"),
    SIG(8, "WAVE", SOUND, "a WAV sound"), /* after RIFF or RF64 */
    SIG(0, "ID3", SOUND, "an MP3 sound"),
    SIG(0, "fLaC", SOUND, "a FLAC sound"),
    SIG(0, "OggS", SOUND, "an Ogg sound"),
    SIG(4, "ftypavif", OTHER, "an AVIF picture"),
    SIG(4, "ftypavis", OTHER, "an AVIF picture"),
    SIG(4, "ftyphe", OTHER, "a HEIC picture"), /* heic, heix, heim, heis, hevc … */
    SIG(4, "ftypmif1", OTHER, "a HEIC picture"),
    SIG(4, "ftypmsf1", OTHER, "a HEIC picture"),
    SIG(4, "ftyp", SOUND, "an MP4 file"),
    SIG(0, "GIF8", OTHER, "a GIF picture"),
    SIG(0, "BM", OTHER, "a BMP picture"),
    SIG(0, "II*\0", OTHER, "a TIFF picture"),
    SIG(0, "MM\0*", OTHER, "a TIFF picture"),
    SIG(0, "\xff\x0a", OTHER, "a JPEG XL picture"),
    SIG(4, "JXL ", OTHER, "a JPEG XL picture"),
    SIG(4, "jP  ", OTHER, "a JPEG 2000 picture"),
    SIG(0, "8BPS", OTHER, "a Photoshop picture"),
    SIG(0, "\x1a\x45\xdf\xa3", OTHER, "a WebM or Matroska file"),
    SIG(0, "FORM", OTHER, "an AIFF sound"),
    SIG(0, "#!AMR", OTHER, "an AMR sound"),
    SIG(0, "0&\xb2u\x8e\x66\xcf\x11", OTHER, "a WMA or WMV file"),
    SIG(0, "%PDF", OTHER, "a PDF document"),
    SIG(0, "PK\3\4", OTHER, "a ZIP archive"),
    SIG(0, "\x1f\x8b", OTHER, "a gzip archive"),
};

/* MPEG audio and ADTS frames begin with eleven or twelve one bits and no magic. */
static const char *mpeg_frame(const uint8_t *p, size_t n)
{
    if (n < 2 || p[0] != 0xff) return NULL;
    if ((p[1] & 0xf6) == 0xf0) return "an AAC sound";
    bool mpeg = (p[1] & 0xe0) == 0xe0 && (p[1] & 0x18) != 0x08 && (p[1] & 0x06) != 0;
    return mpeg ? "an MP3 sound" : NULL;
}

static bool starts(const char *p, size_t n, const char *word)
{
    size_t len = strlen(word);
    return n >= len && strncasecmp(p, word, len) == 0;
}

/* Text, and what kind: a signed address that expired yields an XML or HTML page under a
 * picture's name. */
static const char *text(const uint8_t *data, size_t n)
{
    enum { LOOK_BYTES = 512 };
    if (n > LOOK_BYTES) n = LOOK_BYTES;
    for (size_t i = 0; i < n; i++) {
        bool control = data[i] < 0x20 && !(data[i] >= '\t' && data[i] <= '\r');
        if (control || data[i] == 0x7f) return NULL;
    }
    const char *p = (const char *)data;
    if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) p += 3, n -= 3;
    while (n && strchr(" \t\r\n\f\v", *p)) p++, n--;
    if (starts(p, n, "<!doctype html") || starts(p, n, "<html")) return "an HTML page";
    if (starts(p, n, "<svg")) return "an SVG drawing";
    if (starts(p, n, "<")) return "XML text";
    if (starts(p, n, "{") || starts(p, n, "[")) return "JSON text";
    return "text";
}

em_media_kind em_media_sniff(const void *data, size_t size_bytes, const char **name)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
        const signature *s = &signatures[i];
        if (size_bytes < s->offset + s->len) continue;
        if (memcmp(p + s->offset, s->magic, s->len) != 0) continue;
        if (s->offset == 8 && memcmp(p, "RIFF", 4) != 0 && memcmp(p, "RF64", 4) != 0) continue;
        *name = s->name;
        return s->kind;
    }
    *name = mpeg_frame(p, size_bytes);
    if (*name) return EM_MEDIA_SOUND;
    *name = text(p, size_bytes);
    if (*name) return EM_MEDIA_OTHER;
    *name = "data of an unknown kind";
    return EM_MEDIA_UNKNOWN;
}
