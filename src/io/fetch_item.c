#include "io/fetch_item.h"

#include "base/alloc.h"
#include "base/str.h"
#include "io/media_whole.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { RANGE_TEXT = 64, MOVED_BYTES = 64 << 10 };

static const char *shown(const em_fetch_item *it, char out[EM_HTTP_SHOWN])
{
    return em_url_public(out, EM_HTTP_SHOWN, it->url);
}

/* ---- before ---------------------------------------------------------------------------------- */

static void forget(em_fetch_item *it)
{
    it->have_bytes = it->total_bytes = 0;
    it->etag[0] = 0;
    it->sniffed = false;
    em_sha256_start(&it->hash);
}

/* Is there room for `more` bytes, and what shall stay free besides? */
static em_status check_room(const em_fetch_item *it, uint64_t more, em_err *err)
{
    char name[EM_HTTP_SHOWN], free_text[16], more_text[16];
    uint64_t free_bytes = 0;
    const char *base = em_path_base(it->path);
    char *folder =
        base == it->path ? em_strdup(".") : em_strndup(it->path, (size_t)(base - it->path));
    if (!folder) return em_fail(err, EM_NOMEM, "'%s': out of memory", shown(it, name));
    em_status st = em_dir_free_bytes(&free_bytes, folder, err);
    uint64_t keep = it->http.options->free_bytes;
    if (!st && (free_bytes < keep || free_bytes - keep < more))
        st = em_fail(err, EM_NOSPC, "'%s': no room for %s in '%.100s', where %s are free",
                     shown(it, name), em_format_bytes(more_text, more), folder,
                     em_format_bytes(free_text, free_bytes));
    em_free(folder);
    return st;
}

static bool set_range(em_fetch_item *it, CURL *c)
{
    char line[sizeof it->etag + 16], range[RANGE_TEXT];
    it->asked_range = it->file && it->have_bytes && it->etag[0];
    if (!it->asked_range) {
        curl_easy_setopt(c, CURLOPT_RANGE, NULL);
        curl_easy_setopt(c, CURLOPT_HTTPHEADER, NULL);
        return true;
    }
    snprintf(line, sizeof line, "If-Range: %s", it->etag);
    snprintf(range, sizeof range, "%" PRIu64 "-", it->have_bytes);
    it->headers = curl_slist_append(NULL, line);
    curl_easy_setopt(c, CURLOPT_RANGE, range);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, it->headers);
    return it->headers != NULL;
}

static size_t on_body(char *data, size_t one, size_t n, void *user);

em_status em_fetch_item_begin(em_fetch_item *it, CURL *c, const em_fetch_options *o, em_err *err)
{
    it->http = (em_http){.options = o, .url = it->url};
    it->easy = c;
    it->body = it->again = false;
    it->passed_bytes = 0;
    it->err = (em_err){0};
    em_status st = check_room(it, 0, err);
    if (st) return st;
    if (!set_range(it, c)) return em_fail(err, EM_NOMEM, "no memory for a download");
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, it);
    curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, it->tries > 1 ? 1L : 0L);
    curl_easy_setopt(c, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)it->max_bytes);
    em_http_configure(&it->http, c);
    return EM_OK;
}

/* ---- the answer ------------------------------------------------------------------------------ */

/* The n-th of that name, from 0; NULL: there is none. */
static const char *header(CURL *c, const char *name, size_t n)
{
    struct curl_header *h = NULL;
    return curl_easy_header(c, name, n, CURLH_HEADER, -1, &h) ? NULL : h->value;
}

/* Nothing asked for compression: what comes compressed all the same may be a bomb. */
static const char *foreign_coding(CURL *c)
{
    static const char *const names[] = {"Content-Encoding", "Transfer-Encoding"};
    for (int i = 0; i < 2; i++) {
        const char *coding;
        for (size_t n = 0; (coding = header(c, names[i], n)); n++) {
            bool plain = !*coding || !strcasecmp(coding, "identity");
            if (!plain && (i == 0 || strcasecmp(coding, "chunked") != 0)) return coding;
        }
    }
    return NULL;
}

/* "bytes 100-199/200": does it go on exactly where we are? */
static bool continues(const em_fetch_item *it, CURL *c)
{
    uint64_t from = 0, to = 0, total = 0;
    const char *range = header(c, "Content-Range", 0), *etag = header(c, "ETag", 0);
    if (!range || sscanf(range, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64, &from, &to, &total) != 3)
        return false;
    if (etag && strcmp(etag, it->etag) != 0) return false;
    return from == it->have_bytes && to + 1 == total &&
           (!it->total_bytes || it->total_bytes == total);
}

static void take_validator(em_fetch_item *it, CURL *c)
{
    const char *etag = header(c, "ETag", 0);
    it->etag[0] = 0;
    if (etag && etag[0] == '"' && strlen(etag) < sizeof it->etag)
        memcpy(it->etag, etag, strlen(etag) + 1);
}

static em_status too_large(em_fetch_item *it, em_err *err)
{
    char name[EM_HTTP_SHOWN], most[16];
    return em_fail(err, EM_NETWORK, "'%s' is larger than the %s that are allowed", shown(it, name),
                   em_format_bytes(most, it->max_bytes));
}

/* A whole file begins: sizes, room, an empty target. */
static em_status begin_whole(em_fetch_item *it, CURL *c)
{
    curl_off_t length = -1;
    forget(it);
    take_validator(it, c);
    curl_easy_getinfo(c, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length > 0) it->total_bytes = (uint64_t)length;
    if (it->total_bytes > it->max_bytes) return too_large(it, &it->err);
    em_status st = it->file ? EM_OK : em_file_writer_open(&it->file, it->path, &it->err);
    if (!st) st = check_room(it, it->total_bytes, &it->err);
    if (!st) st = em_file_writer_reserve(it->file, it->total_bytes, &it->err);
    return st;
}

/* Before the first byte of a body. False: it is not taken. */
static bool accept_answer(em_fetch_item *it, CURL *c, long status)
{
    char name[EM_HTTP_SHOWN];
    const char *coding = foreign_coding(c);
    if (coding) {
        em_fail(&it->err, EM_FORMAT, "'%s' comes compressed (%.40s), which nobody asked for",
                shown(it, name), coding);
    } else if (status == 206 && it->asked_range) {
        if (continues(it, c)) return true;
        forget(it);
        em_fail(&it->err, EM_NETWORK, "'%s': the server sends another part than was asked for",
                shown(it, name));
        it->again = true;
    } else if (status != 200) {
        em_fail(&it->err, EM_NETWORK, "'%s': the server answers %ld", shown(it, name), status);
    } else {
        return begin_whole(it, c) == EM_OK;
    }
    return false;
}

/* By its first bytes, as soon as there are enough of them or no more come. */
static bool is_wanted(em_fetch_item *it)
{
    char name[EM_HTTP_SHOWN];
    const char *found = NULL;
    size_t n = it->have_bytes < sizeof it->head ? (size_t)it->have_bytes : sizeof it->head;
    it->media = em_media_sniff(it->head, n, &found);
    it->sniffed = true;
    bool picture =
        it->media == EM_MEDIA_JPEG || it->media == EM_MEDIA_PNG || it->media == EM_MEDIA_WEBP;
    if (it->kind == EM_FETCH_IMAGE ? picture : it->media == EM_MEDIA_SOUND) return true;
    em_fail(&it->err, EM_FORMAT, "'%s' is %s, %s was expected", shown(it, name), found,
            it->kind == EM_FETCH_IMAGE ? "a JPEG, PNG or WebP picture" : "a sound");
    return false;
}

/* Of a redirect: "moved". Nobody reads it, and it may not go on for ever. */
static size_t pass_over(em_fetch_item *it, size_t n)
{
    char name[EM_HTTP_SHOWN];
    it->passed_bytes += n;
    if (it->passed_bytes <= MOVED_BYTES) return n;
    em_fail(&it->err, EM_NETWORK, "'%s': the server's redirect does not end", shown(it, name));
    return 0;
}

static size_t on_body(char *data, size_t one, size_t n, void *user)
{
    em_fetch_item *it = user;
    CURL *c = it->easy;
    long status = 0;
    (void)one; /* always 1 */
    atomic_fetch_add(it->received, n);
    if (!it->body) {
        curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
        if (status >= 300 && status < 400) return pass_over(it, n);
        if (!accept_answer(it, c, status)) return 0;
        it->body = true;
    }
    if (n > it->max_bytes - it->have_bytes) return too_large(it, &it->err), 0;
    if (it->have_bytes < sizeof it->head) {
        size_t room = sizeof it->head - (size_t)it->have_bytes;
        memcpy(it->head + it->have_bytes, data, n < room ? n : room);
    }
    if (em_file_writer_write(it->file, it->have_bytes, data, n, &it->err)) return 0;
    em_sha256_add(&it->hash, data, n);
    it->have_bytes += n;
    if (!it->sniffed && it->have_bytes >= sizeof it->head && !is_wanted(it)) return 0;
    return n;
}

/* ---- after ----------------------------------------------------------------------------------- */

static em_fetch_step failed(em_fetch_item *it, em_err *err)
{
    *err = it->err;
    return it->again ? EM_FETCH_AGAIN : EM_FETCH_FAILED;
}

/* Nothing is left to be asked of a file that is cut: the next try begins at its first byte. */
static em_status check_whole(em_fetch_item *it, em_err *err)
{
    em_map map = {0};
    char name[EM_HTTP_SHOWN];
    em_status st = em_file_map(&map, em_file_writer_part(it->file), false, err);
    if (st) return st;
    if (!em_media_whole(map.data, map.size_bytes, it->media)) {
        st = em_fail(err, EM_FORMAT,
                     "'%s' is cut short: the server ended it after %llu bytes, the file says that "
                     "there are more",
                     shown(it, name), (unsigned long long)it->have_bytes);
        it->etag[0] = 0;
        it->again = true;
    }
    em_map_close(&map);
    return st;
}

/* All bytes are here. */
static em_fetch_step finish(em_fetch_item *it, CURL *c, long status, em_err *err)
{
    char name[EM_HTTP_SHOWN];
    if (!it->body && !accept_answer(it, c, status)) return failed(it, err);
    bool short_of = it->total_bytes && it->have_bytes != it->total_bytes;
    if (!it->have_bytes || short_of) { /* the second: of a part, whose length may say otherwise */
        it->again = true;
        it->etag[0] = 0;
        em_fail(&it->err, EM_FORMAT, "'%s' is %s", shown(it, name), short_of ? "cut" : "empty");
        return failed(it, err);
    }
    if (!it->sniffed && !is_wanted(it)) return failed(it, err);
    /* The room that was claimed may be more than what came. */
    if (em_file_writer_reserve(it->file, it->have_bytes, &it->err) || check_whole(it, &it->err) ||
        em_file_writer_commit(&it->file, &it->err))
        return failed(it, err);
    return EM_FETCH_FINISHED;
}

em_fetch_step em_fetch_item_end(em_fetch_item *it, CURL *c, CURLcode rc, double *retry_after_ms,
                                em_err *err)
{
    long status = 0;
    curl_off_t after_s = 0;
    em_fetch_step step;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &after_s);
    *retry_after_ms = after_s > 0 ? (double)after_s * 1000 : 0;
    if (rc == CURLE_OK && status >= 300 && status < 400) {
        if (em_http_redirect(&it->http, c, status, err)) return EM_FETCH_REDIRECTED;
        step = EM_FETCH_FAILED;
    } else if (rc == CURLE_FILESIZE_EXCEEDED) {
        too_large(it, err);
        step = EM_FETCH_FAILED;
    } else if (it->err.code) {
        step = failed(it, err);
    } else if (rc == CURLE_OK) {
        step = finish(it, c, status, err);
    } else {
        em_http_explain(&it->http, rc, status, &it->again, err);
        if (it->asked_range && (status == 412 || status == 416)) { /* then all of it */
            it->again = true;
            it->etag[0] = 0;
        }
        step = it->again ? EM_FETCH_AGAIN : EM_FETCH_FAILED;
    }
    curl_slist_free_all(it->headers);
    it->headers = NULL;
    em_http_close(&it->http);
    if (step == EM_FETCH_AGAIN && !it->etag[0]) em_fetch_item_abandon(it);
    return step;
}

void em_fetch_item_abandon(em_fetch_item *it)
{
    em_file_writer_close(&it->file);
    forget(it);
}

void em_fetch_item_close(em_fetch_item *it)
{
    em_file_writer_close(&it->file);
    curl_slist_free_all(it->headers);
    em_http_close(&it->http);
    em_free(it->url);
    em_free(it->path);
    *it = (em_fetch_item){0};
}
