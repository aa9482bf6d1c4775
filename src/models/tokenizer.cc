extern "C" {
#include "models/tokenizer.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/json.h"
}

#include <exception>
#include <new>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

/* The one C++ file: libsentencepiece has no C face. Its objects allocate as C++ does, which
 * em_alloc cannot see; what they throw stops at our functions. */

struct em_tokenizer {
    sentencepiece::SentencePieceProcessor model;
    bool byte_fallback = false;
};

namespace
{

constexpr size_t model_bytes_max = 64u << 20;
constexpr size_t json_bytes_max = 256u << 20;

/* "byte_fallback" of the "model" in tokenizer.json beside `path`; no such file, no such key:
 * off. */
em_status read_byte_fallback(bool *on, const char *path, em_err *err)
{
    std::string file(path, (size_t)(em_path_base(path) - path));
    file += "tokenizer.json";
    if (!em_path_is_file(file.c_str())) return EM_OK;

    json_t *doc;
    em_status st = em_json_load(&doc, file.c_str(), json_bytes_max, err);
    if (st) return st;
    std::string source = "'" + file + "'";
    const json_t *model = json_object_get(doc, "model");
    st = em_json_get_bool(on, model, "byte_fallback", source.c_str(), err);
    json_decref(doc);
    return st;
}

em_status load(em_tokenizer *t, const char *path, em_err *err)
{
    char *bytes;
    size_t size_bytes;
    em_status st = em_file_read(&bytes, &size_bytes, path, model_bytes_max, err);
    if (st) return st;
    std::string proto;
    try {
        proto.assign(bytes, size_bytes);
    } catch (...) {
        em_free(bytes);
        throw;
    }
    em_free(bytes);

    const auto status = t->model.LoadFromSerializedProto(proto);
    if (!status.ok()) {
        return em_fail(err, EM_FORMAT, "'%s' is not a SentencePiece model: %s", path,
                       status.error_message());
    }
    const int size = t->model.GetPieceSize(),
              special[] = {t->model.pad_id(), t->model.eos_id(), t->model.unk_id()};
    static const char *const name[] = {"padding", "end", "unknown"};
    for (int i = 0; i < 3; i++) {
        if (special[i] < 0 || special[i] >= size) {
            return em_fail(err, EM_FORMAT, "'%s' has no %s token", path, name[i]);
        }
    }
    return read_byte_fallback(&t->byte_fallback, path, err);
}

/* Bytes of the well-formed UTF-8 character at p (RFC 3629: shortest form, no surrogates), 0 if
 * none; `left` are there. */
size_t utf8_char(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80) return 1;
    const size_t n = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    if (p[0] < 0xC2 || p[0] > 0xF4 || n > left) return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F)) return 0;
    if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F)) return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
    }
    return n;
}

em_status check_text(const char *text, size_t text_bytes, em_err *err)
{
    if (text_bytes > EM_TOKENIZER_TEXT_BYTES) {
        return em_fail(err, EM_INVAL, "the prompt has %zu bytes, at most %u are allowed",
                       text_bytes, EM_TOKENIZER_TEXT_BYTES);
    }
    for (size_t i = 0; i < text_bytes;) {
        const size_t n = utf8_char((const unsigned char *)text + i, text_bytes - i);
        if (n == 0) return em_fail(err, EM_INVAL, "the prompt is not UTF-8 text (byte %zu)", i);
        i += n;
    }
    return EM_OK;
}

em_status nomem(em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory in the tokenizer");
}

} // namespace

em_status em_tokenizer_open(em_tokenizer **out, const char *path, em_err *err)
{
    em_tokenizer *t = nullptr;
    em_status st;
    try {
        t = new em_tokenizer;
        st = load(t, path, err);
    } catch (const std::bad_alloc &) {
        st = nomem(err);
    } catch (const std::exception &e) {
        st = em_fail(err, EM_FORMAT, "'%s' is not a SentencePiece model: %s", path, e.what());
    }
    if (st) {
        em_tokenizer_close(&t);
        return st;
    }
    *out = t;
    return EM_OK;
}

void em_tokenizer_close(em_tokenizer **tokenizer)
{
    if (!tokenizer) return;
    delete *tokenizer;
    *tokenizer = nullptr;
}

void em_tokenizer_set_byte_fallback(em_tokenizer *t, bool on)
{
    t->byte_fallback = on;
}

int32_t em_tokenizer_pad_id(const em_tokenizer *t)
{
    return t->model.pad_id();
}

size_t em_tokenizer_size(const em_tokenizer *t)
{
    return (size_t)t->model.GetPieceSize();
}

em_status em_tokenizer_encode(const em_tokenizer *t, const char *text, size_t text_bytes,
                              size_t max_ids, int32_t *ids, size_t *count, em_err *err)
{
    em_status st = check_text(text, text_bytes, err);
    if (st) return st;
    try {
        std::vector<int> all;
        const auto status = t->model.Encode({text, text_bytes}, &all);
        if (!status.ok()) {
            return em_fail(err, EM_INVAL, "cannot tokenise the prompt: %s", status.error_message());
        }
        size_t n = 0;
        bool in_bytes = false;
        for (size_t i = 0; i < all.size() && n + 1 < max_ids; i++) {
            const bool byte = !t->byte_fallback && t->model.IsByte(all[i]);
            if (!byte) ids[n++] = all[i];
            if (byte && !in_bytes) ids[n++] = t->model.unk_id();
            in_bytes = byte;
        }
        ids[n++] = t->model.eos_id();
        *count = n;
        return EM_OK;
    } catch (const std::bad_alloc &) {
        return nomem(err);
    } catch (const std::exception &e) {
        return em_fail(err, EM_INVAL, "cannot tokenise the prompt: %s", e.what());
    }
}
