#include "batch/ledger.h"

#include "base/alloc.h"
#include "base/str.h"
#include "io/file.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

enum {
    APPLICATION = 0x454d4c31, /* "EML1": how SQLite's header names the owner */
    FORMAT = 1,
    BUSY_MS = 20000,
    RESERVE_BYTES = 48 << 10,
};

typedef enum query {
    FIND,
    PUT,
    COMMITTING,
    FINGERPRINT,
    REMEMBER,
    PACE,
    QUERIES,
} query;

struct em_ledger {
    sqlite3 *db;                  /* owned, like all of this */
    sqlite3_stmt *query[QUERIES]; /* prepared once; each is reset when its use is over */
    char *path;
    pthread_mutex_t lock; /* around each use of a statement */
    bool read_only;
};

static const char schema[] =
    "CREATE TABLE job("
    " output TEXT PRIMARY KEY NOT NULL,"
    " state TEXT NOT NULL,"
    " identity TEXT NOT NULL, about TEXT,"
    " image_sha256 TEXT NOT NULL, audio_sha256 TEXT NOT NULL,"
    " bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,"
    " part TEXT NOT NULL, aside TEXT NOT NULL,"
    " error TEXT NOT NULL, target TEXT, delivered INTEGER NOT NULL,"
    " flops REAL NOT NULL, seconds REAL NOT NULL, pace TEXT NOT NULL,"
    " changed TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE checkpoint("
    " path TEXT PRIMARY KEY NOT NULL,"
    " bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, fingerprint TEXT NOT NULL) WITHOUT ROWID;";

static const char *const text_of[QUERIES] = {
    [FIND] = "SELECT state, identity, about, image_sha256, audio_sha256, bytes, mtime_ns, sha256,"
             " part, aside, error, target, delivered, flops, seconds, pace FROM job"
             " WHERE output = ?1",
    [PUT] = "INSERT OR REPLACE INTO job(output, state, identity, about, image_sha256, audio_sha256,"
            " bytes, mtime_ns, sha256, part, aside, error, target, delivered, flops, seconds, pace,"
            " changed) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,"
            " ?16, ?17, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
    [COMMITTING] = "SELECT output FROM job WHERE state = 'committing' AND output > ?1"
                   " ORDER BY output LIMIT 1",
    [FINGERPRINT] = "SELECT fingerprint FROM checkpoint"
                    " WHERE path = ?1 AND bytes = ?2 AND mtime_ns = ?3",
    [REMEMBER] = "INSERT OR REPLACE INTO checkpoint(path, bytes, mtime_ns, fingerprint)"
                 " VALUES(?1, ?2, ?3, ?4)",
    [PACE] = "SELECT total(flops), total(seconds) FROM job"
             " WHERE pace = ?1 AND state = 'done' AND seconds > 0",
};

static const char *const state_name[EM_LEDGER_STATES] = {
    [EM_LEDGER_FAILED] = "failed",
    [EM_LEDGER_COMMITTING] = "committing",
    [EM_LEDGER_DONE] = "done",
    [EM_LEDGER_FOUND] = "found",
};

/* ---- SQLite's memory ------------------------------------------------------------------------- */

/* Through em_alloc, so that tests can make its n-th allocation fail; SQLite asks for sizes, so each
 * block has its own in front. */
typedef union head {
    size_t size_bytes;
    max_align_t align;
} head;

static void *db_alloc(int n)
{
    head *h = em_alloc(sizeof *h + (size_t)n);
    if (!h) return NULL;
    h->size_bytes = (size_t)n;
    return h + 1;
}

static void db_free(void *p)
{
    if (p) em_free((head *)p - 1);
}

static void *db_realloc(void *p, int n)
{
    head *h = em_realloc_array((head *)p - 1, 1, sizeof *h + (size_t)n);
    if (!h) return NULL;
    h->size_bytes = (size_t)n;
    return h + 1;
}

static int db_size(void *p)
{
    return p ? (int)((head *)p - 1)->size_bytes : 0;
}

static int db_round(int n)
{
    return (n + 7) & ~7;
}

static int db_memory_open(void *user)
{
    (void)user;
    return SQLITE_OK;
}

static void db_memory_close(void *user)
{
    (void)user;
}

/* Refused, without harm, when the program around us has started SQLite already. */
static void set_up(void)
{
    static const sqlite3_mem_methods memory = {
        .xMalloc = db_alloc,
        .xFree = db_free,
        .xRealloc = db_realloc,
        .xSize = db_size,
        .xRoundup = db_round,
        .xInit = db_memory_open,
        .xShutdown = db_memory_close,
    };
    sqlite3_config(SQLITE_CONFIG_MALLOC, &memory);
}

/* ---- failures -------------------------------------------------------------------------------- */

static em_status no_memory(const char *path, em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory using the ledger '%s'", path);
}

static em_status damaged(const char *path, const char *why, em_err *err)
{
    return em_fail(err, EM_FORMAT,
                   "the ledger '%s' is damaged (%s): move it away, with its -wal file; finished "
                   "videos are recognised without it",
                   path, why);
}

/* What SQLite says of the last call as status and sentence. */
static em_status fail_db(const char *path, sqlite3 *db, int rc, em_err *err)
{
    int cause = db ? sqlite3_system_errno(db) : 0;
    const char *why = db ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
    case SQLITE_NOMEM: return no_memory(path, err);
    case SQLITE_FULL: return em_fail(err, EM_NOSPC, "no space left for the ledger '%s'", path);
    case SQLITE_CORRUPT: return damaged(path, why, err);
    case SQLITE_NOTADB: return em_fail(err, EM_FORMAT, "'%s' is not a ledger: move it away", path);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return em_fail(err, EM_IO, "the ledger '%s' is locked by another program: end that one",
                       path);
    case SQLITE_READONLY:
        return em_fail(err, EM_IO, "the ledger '%s' cannot be written: %s", path, why);
    default: break;
    }
    if (cause == ENOSPC || cause == EDQUOT)
        return em_fail_errno(err, cause, "the ledger '%s'", path);
    return em_fail(err, EM_IO, "the ledger '%s' cannot be used: %s", path, why);
}

/* ---- open ------------------------------------------------------------------------------------ */

static em_status run_sql(em_ledger *l, const char *sql, em_err *err)
{
    int rc = sqlite3_exec(l->db, sql, NULL, NULL, NULL);
    return rc ? fail_db(l->path, l->db, rc, err) : EM_OK;
}

/* The one value of a pragma, as a number or, if `text`, as text of at most 31 bytes. */
static em_status ask(em_ledger *l, const char *sql, int *number, char *text, em_err *err)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(l->db, sql, -1, &s, NULL);
    if (!rc) rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) {
        const char *v = text ? (const char *)sqlite3_column_text(s, 0) : NULL;
        if (number) *number = sqlite3_column_int(s, 0);
        if (text) snprintf(text, 32, "%s", v ? v : "");
        rc = text && !v ? SQLITE_NOMEM : SQLITE_OK;
    }
    em_status st = rc && rc != SQLITE_DONE ? fail_db(l->path, l->db, rc, err) : EM_OK;
    sqlite3_finalize(s);
    return st;
}

/* Hosts that share a network file system do not share the memory that the log's index lies in. */
static bool on_network(const char *path)
{
    static const unsigned long kinds[] = {
        0x6969,     /* NFS */
        0x517b,     /* SMB */
        0xff534d42, /* CIFS */
        0xfe534d42, /* SMB 2 */
        0x5346414f, /* AFS */
        0x01021997, /* 9P */
        0x0bd00bd0, /* Lustre */
        0x47504653, /* GPFS */
        0x00c36400, /* Ceph */
        0x19830326, /* BeeGFS */
        0x65735546, /* FUSE: sshfs and others */
    };
    struct statfs info;
    if (statfs(path, &info) != 0) return false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if ((unsigned long)info.f_type == kinds[i]) return true;
    return false;
}

/* Moves the log into the database, so that the next row overwrites the log's beginning in place of
 * making it longer. It may fail: the log is as good. */
static void fold(em_ledger *l)
{
    sqlite3_exec(l->db, "PRAGMA wal_checkpoint(PASSIVE)", NULL, NULL, NULL);
}

/* Rows must reach the disk when it is full, above all the one that says so: the log is written once
 * in full size and from then on overwritten from its beginning; the pages of the dropped table are
 * the database's spare ones. */
static em_status reserve(em_ledger *l, em_err *err)
{
    char sql[160];
    snprintf(sql, sizeof sql,
             "BEGIN IMMEDIATE; CREATE TABLE reserve(b); INSERT INTO reserve VALUES(zeroblob(%d));"
             "DROP TABLE reserve; COMMIT",
             RESERVE_BYTES);
    em_status st = run_sql(l, sql, err);
    if (!st) fold(l);
    return st;
}

/* A new file becomes ours; one that is there must be. Two processes may arrive together: whoever
 * gets the lock first makes the tables. */
static em_status check_format(em_ledger *l, em_err *err)
{
    int application = 0, format = 0, tables = 0;
    char setup[1600], found[32] = "";
    em_status st = l->read_only ? EM_OK : run_sql(l, "BEGIN IMMEDIATE", err);
    if (!st) st = ask(l, "PRAGMA application_id", &application, NULL, err);
    if (!st) st = ask(l, "PRAGMA user_version", &format, NULL, err);
    if (!st) st = ask(l, "SELECT count(*) FROM sqlite_schema", &tables, NULL, err);
    if (!st && !application && !tables && !l->read_only) {
        snprintf(setup, sizeof setup, "PRAGMA application_id = %d; PRAGMA user_version = %d; %s",
                 APPLICATION, FORMAT, schema);
        st = run_sql(l, setup, err);
    } else if (!st && application != APPLICATION) {
        st =
            em_fail(err, EM_FORMAT, "'%s' is a database of another program: move it away", l->path);
    } else if (!st && format != FORMAT) {
        st = em_fail(err, EM_FORMAT,
                     "the ledger '%s' has format %d, this version knows %d: use the version that "
                     "made it, or another --save_path",
                     l->path, format, FORMAT);
    }
    if (!st && !l->read_only) st = run_sql(l, "COMMIT", err);
    if (!st) st = ask(l, "PRAGMA quick_check(1)", NULL, found, err);
    if (!st && strcmp(found, "ok") != 0) st = damaged(l->path, found, err);
    return st;
}

static em_status open_db(em_ledger *l, em_err *err)
{
    int flags = l->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    int rc = sqlite3_open_v2(l->path, &l->db, flags | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc) return fail_db(l->path, l->db, rc, err);
    sqlite3_busy_timeout(l->db, BUSY_MS);
    em_status st = EM_OK;
    if (!l->read_only) {
        char mode[32] = "";
        bool shared = on_network(l->path);
        st = ask(l, shared ? "PRAGMA journal_mode = DELETE" : "PRAGMA journal_mode = WAL", NULL,
                 mode, err);
        if (!st) st = run_sql(l, "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY", err);
    }
    if (!st) st = check_format(l, err);
    return st || l->read_only ? st : reserve(l, err);
}

static em_status prepare_all(em_ledger *l, em_err *err)
{
    for (int i = 0; i < QUERIES; i++) {
        int rc = sqlite3_prepare_v3(l->db, text_of[i], -1, SQLITE_PREPARE_PERSISTENT, &l->query[i],
                                    NULL);
        /* The header says that the tables are ours: they must be as they were made. */
        if (rc == SQLITE_ERROR) return damaged(l->path, sqlite3_errmsg(l->db), err);
        if (rc) return fail_db(l->path, l->db, rc, err);
    }
    return EM_OK;
}

em_status em_ledger_open(em_ledger **out, const char *path, bool read_only, em_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (read_only && !em_path_is_file(path)) return EM_OK;
    pthread_once(&once, set_up);
    em_ledger *l = em_alloc(sizeof *l);
    if (!l) return no_memory(path, err);
    pthread_mutex_init(&l->lock, NULL);
    l->read_only = read_only;
    em_status st = (l->path = em_strdup(path)) ? open_db(l, err) : no_memory(path, err);
    if (!st) st = prepare_all(l, err);
    if (st)
        em_ledger_close(&l);
    else
        *out = l;
    return st;
}

void em_ledger_close(em_ledger **ledger)
{
    em_ledger *l = *ledger;
    if (!l) return;
    for (int i = 0; i < QUERIES; i++) sqlite3_finalize(l->query[i]);
    sqlite3_close(l->db);
    pthread_mutex_destroy(&l->lock);
    em_free(l->path);
    em_free(l);
    *ledger = NULL;
}

/* ---- statements ------------------------------------------------------------------------------ */

/* A statement in use: the first failure of binding stays in rc. */
typedef struct use {
    em_ledger *l;
    sqlite3_stmt *s;
    int rc;
    int next; /* the parameter that is bound next */
} use;

static use begin(em_ledger *l, query q)
{
    pthread_mutex_lock(&l->lock);
    return (use){.l = l, .s = l->query[q], .next = 1};
}

static void bind_text(use *u, const char *text)
{
    if (!u->rc) u->rc = sqlite3_bind_text(u->s, u->next, text, -1, SQLITE_STATIC);
    u->next++;
}

static void bind_int(use *u, int64_t v)
{
    if (!u->rc) u->rc = sqlite3_bind_int64(u->s, u->next, v);
    u->next++;
}

static void bind_real(use *u, double v)
{
    if (!u->rc) u->rc = sqlite3_bind_double(u->s, u->next, v);
    u->next++;
}

/* Whether there is a row to read, in *found (NULL: none is expected). */
static em_status step(use *u, bool *found, em_err *err)
{
    int rc = u->rc ? u->rc : sqlite3_step(u->s);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return fail_db(u->l->path, u->l->db, rc, err);
    if (found) *found = rc == SQLITE_ROW;
    return EM_OK;
}

static void end(use *u)
{
    sqlite3_reset(u->s);
    sqlite3_clear_bindings(u->s);
    pthread_mutex_unlock(&u->l->lock);
}

/* The same after a write. */
static void end_written(use *u)
{
    sqlite3_reset(u->s);
    fold(u->l);
    end(u);
}

/* Copies a text column; one that does not fit is no text of ours. False then. */
static bool take_text(use *u, int column, char *out, size_t room)
{
    const char *text = (const char *)sqlite3_column_text(u->s, column);
    int n = snprintf(out, room, "%s", text ? text : "");
    return n >= 0 && (size_t)n < room;
}

/* *out is owned; NULL for NULL. False when out of memory. */
static bool take_copy(use *u, int column, char **out)
{
    const char *text = (const char *)sqlite3_column_text(u->s, column);
    *out = text ? em_strdup(text) : NULL;
    return *out || sqlite3_column_type(u->s, column) == SQLITE_NULL;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

/* Columns in the order of FIND. False: a value that no version of ours wrote. */
static bool take_row(use *u, em_ledger_row *row)
{
    char state[16];
    bool ok = take_text(u, 0, state, sizeof state);
    row->state = EM_LEDGER_STATES;
    for (int s = 0; ok && s < EM_LEDGER_STATES; s++)
        if (!strcmp(state, state_name[s])) row->state = (em_ledger_state)s;
    row->video.size_bytes = (uint64_t)sqlite3_column_int64(u->s, 5);
    row->video.mtime_ns = sqlite3_column_int64(u->s, 6);
    row->delivered = sqlite3_column_int(u->s, 12) != 0;
    row->flops = sqlite3_column_double(u->s, 13);
    row->seconds = sqlite3_column_double(u->s, 14);
    return ok && row->state < EM_LEDGER_STATES &&
           take_text(u, 1, row->identity, sizeof row->identity) &&
           take_text(u, 3, row->image_sha256, sizeof row->image_sha256) &&
           take_text(u, 4, row->audio_sha256, sizeof row->audio_sha256) &&
           take_text(u, 7, row->video.sha256, sizeof row->video.sha256) &&
           take_text(u, 8, row->part, sizeof row->part) &&
           take_text(u, 9, row->aside, sizeof row->aside) &&
           take_text(u, 10, row->error, sizeof row->error) &&
           take_text(u, 15, row->pace, sizeof row->pace);
}

em_status em_ledger_find(em_ledger *l, const char *output, em_ledger_row *row, bool *found,
                         em_err *err)
{
    em_ledger_row r = {0};
    bool any = false;
    use u = begin(l, FIND);
    bind_text(&u, output);
    em_status st = step(&u, &any, err);
    if (!st && any && !take_row(&u, &r))
        st = sqlite3_errcode(l->db) == SQLITE_NOMEM
                 ? no_memory(l->path, err)
                 : damaged(l->path, "a row holds what this program does not write", err);
    if (!st && any && (!take_copy(&u, 2, &r.about) || !take_copy(&u, 11, &r.target)))
        st = no_memory(l->path, err);
    end(&u);
    if (st) {
        em_ledger_row_close(&r);
        return st;
    }
    if (any) *row = r;
    *found = any;
    return EM_OK;
}

void em_ledger_row_close(em_ledger_row *row)
{
    em_free(row->about);
    em_free(row->target);
    *row = (em_ledger_row){0};
}

em_status em_ledger_put(em_ledger *l, const char *output, const em_ledger_row *row, em_err *err)
{
    use u = begin(l, PUT);
    bind_text(&u, output);
    bind_text(&u, state_name[row->state]);
    bind_text(&u, row->identity);
    bind_text(&u, row->about);
    bind_text(&u, row->image_sha256);
    bind_text(&u, row->audio_sha256);
    bind_int(&u, (int64_t)row->video.size_bytes);
    bind_int(&u, row->video.mtime_ns);
    bind_text(&u, row->video.sha256);
    bind_text(&u, row->part);
    bind_text(&u, row->aside);
    bind_text(&u, row->error);
    bind_text(&u, row->target);
    bind_int(&u, row->delivered);
    bind_real(&u, row->flops);
    bind_real(&u, row->seconds);
    bind_text(&u, row->pace);
    em_status st = step(&u, NULL, err);
    end_written(&u);
    return st;
}

em_status em_ledger_committing(em_ledger *l, const char *after, char out[EM_LEDGER_NAME_ROOM],
                               em_err *err)
{
    bool any = false;
    use u = begin(l, COMMITTING);
    bind_text(&u, after);
    em_status st = step(&u, &any, err);
    out[0] = 0;
    if (!st && any && !take_text(&u, 0, out, EM_LEDGER_NAME_ROOM))
        st = damaged(l->path, "a name is too long", err);
    end(&u);
    return st;
}

/* ---- checkpoints and pace -------------------------------------------------------------------- */

em_status em_ledger_fingerprint(em_ledger *l, const char *path, const em_ledger_file *file,
                                char out[EM_LEDGER_HASH], bool *found, em_err *err)
{
    use u = begin(l, FINGERPRINT);
    bind_text(&u, path);
    bind_int(&u, (int64_t)file->size_bytes);
    bind_int(&u, file->mtime_ns);
    em_status st = step(&u, found, err);
    if (!st && *found && !take_text(&u, 0, out, EM_LEDGER_HASH))
        st = damaged(l->path, "a fingerprint is too long", err);
    end(&u);
    return st;
}

em_status em_ledger_remember(em_ledger *l, const char *path, const em_ledger_file *file,
                             em_err *err)
{
    if (l->read_only) return EM_OK;
    use u = begin(l, REMEMBER);
    bind_text(&u, path);
    bind_int(&u, (int64_t)file->size_bytes);
    bind_int(&u, file->mtime_ns);
    bind_text(&u, file->sha256);
    em_status st = step(&u, NULL, err);
    end_written(&u);
    return st;
}

em_status em_ledger_pace(em_ledger *l, const char *pace, double *flops_per_second, em_err *err)
{
    bool any = false;
    use u = begin(l, PACE);
    bind_text(&u, pace);
    em_status st = step(&u, &any, err);
    double flops = !st && any ? sqlite3_column_double(u.s, 0) : 0;
    double seconds = !st && any ? sqlite3_column_double(u.s, 1) : 0;
    end(&u);
    if (!st) *flops_per_second = seconds > 0 ? flops / seconds : 0;
    return st;
}
