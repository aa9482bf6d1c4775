/* Encoded prompts on the disk, from run to run: a folder of small files, one a prompt.
 *
 * A file's name and key are a digest of what the rows depend on: the text encoder (the caller's
 * key), the op table, the working type, and the text. It is checked when it is read, written all
 * or nothing, and may go at any time: several processes may share a folder. */
#ifndef EM_PIPELINE_PROMPT_FOLDER_H
#define EM_PIPELINE_PROMPT_FOLDER_H

#include "base/dtype.h"
#include "base/log.h"
#include "pipeline/prompt_cache.h"

typedef struct em_prompt_folder em_prompt_folder;

enum { EM_PROMPT_FOLDER_MIB = 256 }; /* unless told otherwise: 32 prompts of full length */

typedef struct em_prompt_folder_params {
    const char *dir; /* made if it is not there */
    const char *key; /* of the text encoder */
    const char *ops; /* name of the op table */
    em_dtype dtype;
    uint64_t max_bytes; /* 0: EM_PROMPT_FOLDER_MIB */
    em_log log;
} em_prompt_folder_params;

/* *out is owned by the caller: em_prompt_folder_close. Strings are copied. EM_IO when the folder
 * cannot be made. */
em_status em_prompt_folder_open(em_prompt_folder **out, const em_prompt_folder_params *p,
                                em_err *err);
void em_prompt_folder_close(em_prompt_folder **f); /* NULL inside is allowed */

/* Fills p->rows (n, dim) and sets p->encoded when the text's file is there, whole, and made of the
 * same ids; it counts as used then. f may be NULL. */
void em_prompt_folder_load(em_prompt_folder *f, em_prompt *p, int64_t dim);

/* Keeps p, which is encoded (rows with a NaN are not kept), and removes those used longest ago
 * while there are too many bytes. A failure is a warning. f may be NULL. */
void em_prompt_folder_save(em_prompt_folder *f, const em_prompt *p, int64_t dim);

#endif
