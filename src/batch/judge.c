/* What a job's row and its file say together: whether it is finished.
 *
 *     row            file            verdict
 *     none, FAILED   none            to be made
 *     none, FAILED   whole           found: somebody else's, left alone
 *     DONE           agrees          same identity: finished; another: made anew, this one aside
 *     FOUND          agrees          finished
 *     DONE, FOUND    whole, differs  found
 *     any            not whole       to be made
 *     COMMITTING     (see below)     becomes DONE, or to be made
 *
 * --force: always to be made. */
#include "batch/state.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/video_out.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

bool em_ledger_agrees(const em_ledger_file *recorded, const char *path)
{
    em_ledger_file now;
    if (!em_identity_stat(&now, path) || now.size_bytes != recorded->size_bytes) return false;
    if (now.mtime_ns == recorded->mtime_ns) return true;
    return !em_identity_of_file(&now, path, NULL) && !strcmp(now.sha256, recorded->sha256);
}

/* A name alone proves nothing: a killed program leaves half a file under it. */
static bool is_whole(em_batch *b, const char *path)
{
    em_video_info video;
    em_err e = {0};
    if (!em_path_is_file(path)) return false;
    if (!em_video_check(&video, path, &e)) return true;
    em_logf(&b->options.log, EM_LOG_WARN, "%s; it is made anew", e.msg);
    return false;
}

/* ---- commits that were cut short ------------------------------------------------------------- */

static em_status sync_folder(const char *dir, em_err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return em_fail_errno(err, errno, "cannot open the folder '%s'", dir);
    int rc = fsync(fd), cause = errno;
    close(fd);
    if (rc != 0 && cause != EINVAL) return em_fail_errno(err, cause, "cannot sync '%s'", dir);
    return EM_OK;
}

/* The row was written when the bytes were on the disk: they are under the one name or the other. */
static em_status complete(em_batch *b, const char *name, em_ledger_row *row, em_err *err)
{
    const char *dir = b->options.save_path;
    char *output = em_path_join(dir, name);
    char *part = em_path_join(dir, em_path_base(row->part)); /* beside it, whatever the row says */
    char *aside = em_path_join(dir, em_path_base(row->aside));
    em_status st = EM_OK;
    if (!output || !part || !aside) {
        st = em_fail(err, EM_NOMEM, "no memory for the batch");
    } else if (em_ledger_agrees(&row->video, output)) {
        row->state = EM_LEDGER_DONE;
    } else if (em_ledger_agrees(&row->video, part)) {
        if (row->aside[0] && em_path_is_file(output)) link(output, aside); /* or it was done */
        if (rename(part, output) != 0)
            st = em_fail_errno(err, errno, "cannot give '%s' its name", output);
        row->state = EM_LEDGER_DONE;
    } else {
        row->state = EM_LEDGER_FAILED;
        row->video = (em_ledger_file){0};
        snprintf(row->error, sizeof row->error,
                 "the program ended before the video had its name, and its bytes are gone");
    }
    row->part[0] = row->aside[0] = 0;
    if (!st) st = sync_folder(dir, err);
    if (!st) st = em_ledger_put(b->ledger, name, row, err);
    if (!st && row->state == EM_LEDGER_DONE)
        em_logf(&b->options.log, EM_LOG_INFO, "'%s' was complete when the program ended: kept",
                output);
    em_free(output);
    em_free(part);
    em_free(aside);
    return st;
}

/* Rows of a living process are its own business. */
static em_status recover_one(em_batch *b, const char *name, em_err *err)
{
    em_ledger_row row;
    bool found = false;
    if (!em_claim_take(b->claims, name)) return EM_OK;
    em_status st = em_ledger_find(b->ledger, name, &row, &found, err);
    if (found) {
        if (row.state == EM_LEDGER_COMMITTING) st = complete(b, name, &row, err);
        em_ledger_row_close(&row);
    }
    em_claim_drop(b->claims, name);
    return st;
}

/* ---- what finished jobs could have been continued from --------------------------------------- */

/* ".NAME.steps" -> NAME, and "..NAME.steps.part-PID", which a kill left of writing that; false for
 * any other name. */
static bool name_of_steps(char out[EM_LEDGER_NAME_ROOM], const char *file)
{
    const char *part = strstr(file, EM_STEPS_SUFFIX ".part-");
    size_t n = strlen(file), end = strlen(EM_STEPS_SUFFIX);
    if (part && file[0] == '.' && file[1] == '.') {
        file++;
        n = (size_t)(part - file) + end;
    }
    if (file[0] != '.' || n <= end + 1 || strncmp(file + n - end, EM_STEPS_SUFFIX, end) != 0)
        return false;
    snprintf(out, EM_LEDGER_NAME_ROOM, "%.*s", (int)(n - end - 1), file + 1);
    return true;
}

/* No use any more: its job is finished, or it is so old that nobody comes back to it. */
static bool is_stale(em_batch *b, int dir, const char *file, const char *name)
{
    enum { OLD_S = 30 * 24 * 3600 };
    struct stat info;
    em_ledger_row row;
    bool found = false, stale = false;
    if (!em_ledger_find(b->ledger, name, &row, &found, NULL) && found) {
        stale = row.state == EM_LEDGER_DONE && !b->options.force;
        em_ledger_row_close(&row);
    }
    return stale ||
           (fstatat(dir, file, &info, 0) == 0 && time(NULL) - info.st_mtime > (time_t)OLD_S);
}

static void remove_stale_steps(em_batch *b)
{
    char name[EM_LEDGER_NAME_ROOM];
    DIR *d = opendir(b->options.save_path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!name_of_steps(name, e->d_name) || !em_claim_take(b->claims, name)) continue;
        em_str path = {0};
        if (is_stale(b, dirfd(d), e->d_name, name))
            em_str_printf(&path, "%s/.%s%s", b->options.save_path, name, EM_STEPS_SUFFIX);
        if (path.len && !path.failed) em_resume_discard(em_str_text(&path));
        em_str_free(&path);
        em_claim_drop(b->claims, name);
    }
    if (d) closedir(d);
}

em_status em_batch_recover(em_batch *b, em_err *err)
{
    char name[EM_LEDGER_NAME_ROOM] = "";
    em_status st = EM_OK;
    if (!b->ledger) return EM_OK;
    while (!(st = em_ledger_committing(b->ledger, name, name, err)) && name[0])
        if ((st = recover_one(b, name, err))) return st;
    remove_stale_steps(b);
    return st;
}

/* ---- one job --------------------------------------------------------------------------------- */

/* Recorded as what it is, so that it need not be examined again. */
static em_status adopt(em_batch_item *it, em_err *err)
{
    em_batch *b = it->batch;
    em_ledger_row row = {.state = EM_LEDGER_FOUND};
    em_status st = EM_OK;
    it->state = EM_JOB_KEPT;
    it->found = true;
    if (!b->options.dry_run) {
        st = em_identity_of_file(&row.video, it->output, err);
        if (!st) st = em_ledger_put(b->ledger, em_path_base(it->output), &row, err);
    }
    if (!st)
        em_logf(&b->options.log, EM_LOG_INFO,
                "'%s' is there already, made by somebody else: skipped (--force makes it anew)",
                it->output);
    return st;
}

void em_item_keep(em_batch_item *it)
{
    it->state = EM_JOB_KEPT;
    em_logf(&it->batch->options.log, EM_LOG_INFO,
            "'%s' is finished: skipped (--force makes it anew)", it->output);
}

/* The file is the recorded one; is it this job's? */
static void judge_recorded(em_batch_item *it, const em_ledger_row *row)
{
    char difference[300];
    if (row->state == EM_LEDGER_FOUND || !strcmp(row->identity, it->identity.hash)) {
        it->found = row->state == EM_LEDGER_FOUND;
        em_item_keep(it);
        return;
    }
    it->aside = true;
    em_identity_difference(difference, sizeof difference, row->about ? row->about : "",
                           it->identity.about);
    em_logf(&it->batch->options.log, EM_LOG_INFO,
            "'%s' was made with other settings (%s): it is made anew, the older one is kept",
            it->output, difference);
}

static em_status judge_video(em_batch_item *it, const em_ledger_row *row, em_err *err)
{
    em_batch *b = it->batch;
    const em_batch_options *o = &b->options;
    bool recorded = row && row->video.sha256[0];
    if (o->force) return EM_OK;
    if (row && row->state == EM_LEDGER_COMMITTING) return EM_OK; /* a living process has it */
    if (recorded && em_ledger_agrees(&row->video, it->output)) {
        judge_recorded(it, row);
    } else if (is_whole(b, it->output)) {
        if (b->ledger) return adopt(it, err);
        em_item_keep(it);
    } else if (recorded && !em_path_is_file(it->output)) {
        em_logf(&o->log, EM_LOG_INFO, "'%s' was finished and is gone: it is made anew", it->output);
    }
    return EM_OK;
}

static void judge_delivery(em_batch_item *it, const em_ledger_row *row)
{
    char target[600];
    const char *to = it->job->upload_url;
    if (!to) return;
    em_url_public(target, sizeof target, to);
    bool same = row && row->delivered && row->target && !strcmp(row->target, target);
    bool made = it->state == EM_JOB_KEPT;
    it->delivery = made && same ? EM_DELIVERY_DONE : EM_DELIVERY_DUE;
}

/* --retry_failed leaves alone what did not fail: what was never tried, and what is finished. */
static bool is_retried(const em_batch_item *it, const em_ledger_row *row)
{
    if (!it->batch->options.retry_failed || !it->batch->ledger) return true;
    if (it->state == EM_JOB_KEPT) return true; /* nothing is made; an upload may be due */
    return row && (row->state == EM_LEDGER_FAILED || row->state == EM_LEDGER_COMMITTING);
}

em_status em_item_judge(em_batch_item *it, em_err *err)
{
    em_batch *b = it->batch;
    em_ledger_row row = {0};
    bool found = false;
    em_status st = EM_OK;
    it->aside = it->found = it->idle = false;
    if (b->ledger) st = em_ledger_find(b->ledger, em_path_base(it->output), &row, &found, err);
    if (!st) st = judge_video(it, found ? &row : NULL, err);
    if (!st) judge_delivery(it, found ? &row : NULL);
    if (!st) it->idle = !is_retried(it, found ? &row : NULL);
    em_ledger_row_close(&row);
    return st;
}
