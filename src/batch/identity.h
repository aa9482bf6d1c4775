/* What makes a video the one that it is. Two jobs of one identity give the same frames, so that one
 * of them need not be run.
 *
 * Part of it: picture and sound (an address without its query, for signatures change; a file's
 * path, size and time), every parameter that changes frames, the content of every checkpoint, the
 * machinery that computes, and EM_RESULT_VERSION. Not part of it: memory mode, budgets, threads,
 * folders.
 *
 * It is kept as text, a line a fact, so that a difference can be said in words, and as the SHA-256
 * of that text. */
#ifndef EM_BATCH_IDENTITY_H
#define EM_BATCH_IDENTITY_H

#include "base/hash.h"
#include "base/str.h"
#include "batch/ledger.h"
#include "batch/manifest.h"
#include "io/model_folder.h"

/* Raised when the same inputs give other frames than before, and only then. */
enum { EM_RESULT_VERSION = 1 };

typedef struct em_identity {
    char hash[EM_SHA256_HEX_BYTES];
    char *about; /* owned: em_identity_close */
} em_identity;

/* What all jobs of a batch share. */
typedef struct em_machinery {
    const char *device; /* the kind that computes: results depend on it */
    const char *voice;  /* the kind that hears the voice; NULL: the same */
    em_weight_dtype dtype;
} em_machinery;

/* The lines of the checkpoints and of what computes, to be handed to em_identity_make; *out must be
 * {0}, it is the caller's (em_str_free). A file whose size and time the ledger (NULL: there is
 * none) remembers is not opened. `text_encoder` becomes the hash of what encodes prompts alone. */
em_status em_identity_models(em_str *out, char text_encoder[EM_SHA256_HEX_BYTES],
                             const em_model_config *models, const em_machinery *machinery,
                             em_ledger *ledger, em_err *err);

/* *out is owned by the caller. A file that cannot be examined is part of the identity as such: the
 * job will say what is wrong with it. */
em_status em_identity_make(em_identity *out, const em_batch_job *job, const char *models,
                           em_err *err);
void em_identity_close(em_identity *id);

/* Do two texts differ in the names of picture and sound at most? */
bool em_identity_same_but_inputs(const char *a, const char *b);
/* "seed 43, now seed 44": the first line in which they differ; "" when they do not. Into out;
 * returns out. */
const char *em_identity_difference(char *out, size_t room, const char *before, const char *now);

/* What a file holds, with its size and time. */
em_status em_identity_of_file(em_ledger_file *out, const char *path, em_err *err);
/* The same without the hash: no byte is read. False: there is no such file. */
bool em_identity_stat(em_ledger_file *out, const char *path);
void em_sha256_of_text(char out[EM_SHA256_HEX_BYTES], const char *text);

#endif
