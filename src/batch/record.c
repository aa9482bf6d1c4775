/* The rows of a job on its way, in the order in which they become true:
 *
 *     the video is whole and on the disk   ->  COMMITTING, with its hash   ->  its name
 *                                          ->  DONE
 *
 * A program that dies between two of these is understood by the next (judge.c). */
#include "batch/state.h"

#include "base/alloc.h"
#include "io/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static double total_flops(const em_result *r)
{
    double sum = 0;
    for (int s = 0; s < EM_STAGE_COUNT; s++) sum += r->stage[s].flops;
    return sum;
}

static double total_seconds(const em_result *r)
{
    double sum = 0;
    for (int s = 0; s < EM_STAGE_COUNT; s++) sum += r->stage[s].ms / 1000;
    return sum;
}

/* What a row says of the job itself; about and target are borrowed. */
static em_ledger_row describe(const em_batch_item *it)
{
    em_ledger_row row = {.about = it->identity.about};
    snprintf(row.identity, sizeof row.identity, "%s", it->identity.hash);
    snprintf(row.image_sha256, sizeof row.image_sha256, "%s", it->image_sha256);
    snprintf(row.audio_sha256, sizeof row.audio_sha256, "%s", it->audio_sha256);
    snprintf(row.pace, sizeof row.pace, "%s", it->batch->pace);
    return row;
}

static const char *key(const em_batch_item *it)
{
    return em_path_base(it->output);
}

/* ---- commit ---------------------------------------------------------------------------------- */

/* "x_output.mp4" -> "x_output.1.mp4", or the first number that is free. */
static em_status find_aside(char out[EM_LEDGER_NAME_ROOM], const em_batch_item *it, em_err *err)
{
    enum { NAMES = 1000 };
    const char *base = key(it), *dot = strrchr(base, '.');
    int stem = dot ? (int)(dot - base) : (int)strlen(base), folder = (int)(base - it->output);
    for (int i = 1; i < NAMES; i++) {
        em_str path = {0};
        snprintf(out, EM_LEDGER_NAME_ROOM, "%.*s.%d%s", stem, base, i, dot ? dot : "");
        em_str_printf(&path, "%.*s%s", folder, it->output, out);
        bool taken = !path.failed && access(em_str_text(&path), F_OK) == 0;
        bool failed = path.failed;
        em_str_free(&path);
        if (failed) return em_fail(err, EM_NOMEM, "no memory for the batch");
        if (!taken) return EM_OK;
    }
    return em_fail(err, EM_IO, "'%s': a thousand older videos are kept beside it: remove some",
                   it->output);
}

/* Both names at once, so that at no moment the older video has none; a file system without links
 * has it moved. */
static em_status put_aside(const em_batch_item *it, const char *name, em_err *err)
{
    em_str path = {0};
    em_str_printf(&path, "%.*s%s", (int)(key(it) - it->output), it->output, name);
    const char *to = em_str_text(&path);
    em_status st = EM_OK;
    if (path.failed)
        st = em_fail(err, EM_NOMEM, "no memory for the batch");
    else if (link(it->output, to) != 0 && errno != EEXIST && rename(it->output, to) != 0)
        st = em_fail_errno(err, errno, "cannot keep the older '%s' as '%s'", it->output, to);
    else
        em_logf(&it->batch->options.log, EM_LOG_INFO, "the older video is now '%s'", to);
    em_str_free(&path);
    return st;
}

em_status em_item_record_whole(em_batch_item *it, const char *part, em_err *err)
{
    em_ledger_row row = describe(it);
    em_status st = EM_OK;
    bool aside = it->aside && em_path_is_file(it->output);
    if (aside) st = find_aside(row.aside, it, err);
    if (!st && it->batch->ledger) {
        row.state = EM_LEDGER_COMMITTING;
        snprintf(row.part, sizeof row.part, "%s", em_path_base(part));
        st = em_identity_of_file(&row.video, part, err);
        if (!st) st = em_ledger_put(it->batch->ledger, key(it), &row, err);
    }
    if (!st && aside) st = put_aside(it, row.aside, err);
    return st;
}

/* The hash is that of the row before. */
em_status em_item_record_done(em_batch_item *it, em_err *err)
{
    em_ledger_row before = {0}, row = describe(it);
    bool found = false;
    if (!it->batch->ledger) return EM_OK;
    em_status st = em_ledger_find(it->batch->ledger, key(it), &before, &found, err);
    if (!st) {
        row.state = EM_LEDGER_DONE;
        row.video = before.video;
        if (!it->result.steps_resumed) { /* a part of the work alone tells no pace */
            row.flops = total_flops(&it->result);
            row.seconds = total_seconds(&it->result);
        }
        st = em_ledger_put(it->batch->ledger, key(it), &row, err);
    }
    em_ledger_row_close(&before);
    return st;
}

/* ---- other ends ------------------------------------------------------------------------------ */

/* An older video that still stands keeps its record. */
void em_item_record_failure(em_batch_item *it)
{
    em_ledger_row before = {0}, row = describe(it);
    em_err e = {0};
    bool found = false;
    em_batch *b = it->batch;
    if (!b->ledger) return;
    em_status st = em_ledger_find(b->ledger, key(it), &before, &found, &e);
    bool stands = found && before.video.sha256[0] && em_ledger_agrees(&before.video, it->output);
    row.state = EM_LEDGER_FAILED;
    if (stands) {
        row = before;
        row.state = EM_LEDGER_FAILED;
        row.part[0] = row.aside[0] = 0;
    }
    snprintf(row.error, sizeof row.error, "%s", it->err.msg);
    if (!st) st = em_ledger_put(b->ledger, key(it), &row, &e);
    if (st) em_logf(&b->options.log, EM_LOG_WARN, "%s", e.msg);
    em_ledger_row_close(&before);
}

em_status em_item_record_same(em_batch_item *it, bool *same, em_err *err)
{
    em_ledger_row row = {0};
    bool found = false;
    em_batch *b = it->batch;
    *same = false;
    if (!b->ledger || b->options.force) return EM_OK;
    em_status st = em_ledger_find(b->ledger, key(it), &row, &found, err);
    if (st || !found) return st;
    *same = row.state == EM_LEDGER_DONE && row.image_sha256[0] && row.about &&
            !strcmp(row.image_sha256, it->image_sha256) &&
            !strcmp(row.audio_sha256, it->audio_sha256) &&
            em_identity_same_but_inputs(row.about, it->identity.about) &&
            em_ledger_agrees(&row.video, it->output);
    if (*same) {
        em_ledger_row now = row;
        now.about = it->identity.about;
        memcpy(now.identity, it->identity.hash, sizeof now.identity);
        st = em_ledger_put(b->ledger, key(it), &now, err);
    } else if (row.image_sha256[0] && !strcmp(row.identity, it->identity.hash)) {
        if (strcmp(row.image_sha256, it->image_sha256) != 0)
            em_logf(&it->log, EM_LOG_WARN, "the picture is not the one of last time");
        if (strcmp(row.audio_sha256, it->audio_sha256) != 0)
            em_logf(&it->log, EM_LOG_WARN, "the sound is not the one of last time");
    }
    em_ledger_row_close(&row);
    return st;
}

em_status em_item_finished(em_batch_item *it, em_err *err)
{
    em_ledger_row row = {0};
    bool found = false;
    em_batch *b = it->batch;
    if (!b->ledger || b->options.force) return EM_OK;
    em_status st = em_ledger_find(b->ledger, key(it), &row, &found, err);
    if (found && row.state == EM_LEDGER_DONE && !strcmp(row.identity, it->identity.hash) &&
        em_ledger_agrees(&row.video, it->output))
        em_item_keep(it);
    em_ledger_row_close(&row);
    return st;
}

void em_item_record_delivery(em_batch_item *it)
{
    em_ledger_row row = {0};
    em_err e = {0};
    bool found = false;
    char target[600];
    em_batch *b = it->batch;
    if (!b->ledger) return;
    em_status st = em_ledger_find(b->ledger, key(it), &row, &found, &e);
    if (!st && found) {
        char *owned = row.target;
        row.target = target;
        em_url_public(target, sizeof target, it->job->upload_url);
        row.delivered = it->delivery == EM_DELIVERY_DONE;
        snprintf(row.error, sizeof row.error, "%s", it->delivery_err.msg);
        st = em_ledger_put(b->ledger, key(it), &row, &e);
        row.target = owned;
    }
    if (st) em_logf(&b->options.log, EM_LOG_WARN, "%s", e.msg);
    em_ledger_row_close(&row);
}
