/* Text to token ids: SentencePiece's unigram model behind a C face.
 *
 * Quirks of the reference that we reproduce: its tokenizer knows no byte fallback, so that every
 * run of byte pieces (<0x00> to <0xFF>) that SentencePiece makes of unknown characters is one
 * unknown token there. A tokenizer.json beside the model that says "byte_fallback": true keeps the
 * bytes.
 */
#ifndef EM_MODELS_TOKENIZER_H
#define EM_MODELS_TOKENIZER_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EM_TOKENIZER_TEXT_BYTES (1u << 20) /* of one text, at most */

typedef struct em_tokenizer em_tokenizer;

/* path: a spiece.model. Its pad, end and unknown ids are taken from it; a model without one is
 * refused. */
em_status em_tokenizer_open(em_tokenizer **out, const char *path, em_err *err);
void em_tokenizer_close(em_tokenizer **tokenizer);

/* Overrides what tokenizer.json said. */
void em_tokenizer_set_byte_fallback(em_tokenizer *tokenizer, bool on);

int32_t em_tokenizer_pad_id(const em_tokenizer *tokenizer);
size_t em_tokenizer_size(const em_tokenizer *tokenizer); /* every id is below */

/* Cuts to max_ids - 1 ids (max_ids >= 1) and appends the end id; ids has room for max_ids, *count
 * is how many there are. "</s>" and the like in the text are text, a NUL is a character like any
 * other. Refuses what is not UTF-8. May be called from several threads at once. */
em_status em_tokenizer_encode(const em_tokenizer *tokenizer, const char *text, size_t text_bytes,
                              size_t max_ids, int32_t *ids, size_t *count, em_err *err);

#endif
