#include "io/pickle.h"

#include "base/alloc.h"

#include "../test.h"
#include "../torch_file.h"

static em_err err;

/* From a block of exactly its size, so that an over-read is for ASan to see. */
static em_status parse(em_pickle *out, const void *program, size_t n, void **block)
{
    *block = malloc(n ? n : 1);
    memcpy(*block, program, n);
    err = (em_err){0};
    return em_pickle_parse(out, *block, n, "hostile.pth", &err);
}

/* One float storage '0' of 12 items; a (3, 4) tensor of it. */
#define S0 PK_STORAGE("FloatStorage", "0", "K\14")
#define SHAPE "K\3K\4\x86"
#define STRIDE "K\4K\1\x86"
#define T0 PK_TENSOR(S0, "K\0", SHAPE, STRIDE)

static void reads(void **state)
{
    (void)state;
    static const char program[] =
        PK_BEGIN PK_DICT "q\0(" PK_STR1("\1", "b") "q\1" T0 "q\2" PK_STR1("\1", "a")
            PK_GLOBAL("torch._utils", "_rebuild_parameter") "(h\2\x88" PK_DICT
                                                            "tR" PK_STR1("\5", "epoch") "M\1\1"
                                                                                        "u}b.";
    em_pickle p = {0};
    void *block = NULL;
    assert_ok(parse(&p, program, sizeof program - 1, &block), err);
    assert_int_equal(p.items, 2);
    assert_int_equal(p.storages, 1);
    assert_int_equal(p.tensors, 1);
    assert_int_equal(p.storage[0].dtype, EM_F32);
    assert_int_equal(p.storage[0].items, 12);
    assert_int_equal(p.storage[0].key_bytes, 1);
    assert_memory_equal(p.storage[0].key, "0", 1);
    assert_memory_equal(p.item[0].name, "a", 1);
    assert_memory_equal(p.item[1].name, "b", 1);
    assert_int_equal(p.item[0].tensor, 0);
    const em_pickle_tensor *t = &p.tensor[0];
    assert_int_equal(t->ndim, 2);
    assert_true(t->dim[0] == 3 && t->dim[1] == 4 && t->stride[0] == 4 && t->stride[1] == 1);
    assert_true(t->offset == 0 && t->storage == 0);
    em_pickle_close(&p);
    em_pickle_close(&p);
    free(block);
}

typedef struct row {
    const char *program;
    size_t size;
    const char *expect; /* in the sentence; NULL: the program is good */
} row;
#define P(text) text, sizeof(text) - 1
/* {"a": …} */
#define IN(text) P(PK_BEGIN "}" PK_STR1("\1", "a") text "s.")
#define WRAP(key_bytes, key, text) PK_STR1(key_bytes, key) "}" PK_STR1("\1", "a") text "ss."

static const row rows[] = {
    {IN(T0), NULL},
    {P(PK_BEGIN "}" PK_STR1("\1", "a") T0 "s"
                                          "U\1b" T0 "s."),
     NULL},
    {P(PK_BEGIN "}(K\1NJ\xff\xff\xff\xff"
                "G12345678" PK_STR1("\1", "a") T0 "u."),
     NULL},
    {P(PK_BEGIN "}" PK_STR1("\1", "l") "](K\1K\2eK\3as" PK_STR1("\1", "a") T0 "s."), NULL},
    {P(PK_BEGIN "}" PK_STR1("\1", "l") "\x8a\x10"
                                       "1234567890123456"
                                       "s" PK_STR1("\1", "a") T0 "s."),
     NULL},
    {P(PK_BEGIN "}" WRAP("\12", "state_dict", T0)), NULL},
    {P(PK_BEGIN "}" WRAP("\6", "module", T0)), NULL},
    {P(PK_BEGIN "}" WRAP("\5", "model", T0)), NULL},
    {IN(PK_TENSOR(S0, "K\0", "\x8a\1\3\x85", "\x8a\0\x85")), NULL},
    {IN(PK_TENSOR(S0, "K\13", ")", ")")), NULL},
    /* calls: CVE-2025-32434 and its kin. Nothing runs, whatever stands there */
    {P(PK_BEGIN PK_GLOBAL("posix", "system") PK_STR1("\4", "true") "\x85R."), "'posix.system'"},
    {P(PK_BEGIN PK_GLOBAL("os", "system") PK_STR1("\4", "true") "\x85R."), "'os.system'"},
    {P(PK_BEGIN PK_GLOBAL("builtins", "eval") PK_STR1("\1", "1") "\x85R."), "'builtins.eval'"},
    {P(PK_BEGIN PK_GLOBAL("__builtin__", "getattr") "."), "'__builtin__.getattr'"},
    {P(PK_BEGIN PK_GLOBAL("torch.hub", "load") "."), "'torch.hub.load'"},
    {P(PK_BEGIN PK_GLOBAL("torch", "load") "."), "'torch.load'"},
    {P(PK_BEGIN PK_GLOBAL("torch.serialization", "load") "."), "nothing was run"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_tensor") "."), "nothing was run"},
    {P(PK_BEGIN PK_GLOBAL("torch._tensor", "_rebuild_from_type_v2") "."), "nothing was run"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_sparse_tensor") "."), "nothing was run"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_qtensor") "."), "_rebuild_qtensor"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_device_tensor_from_numpy") "."), "nothing"},
    {P(PK_BEGIN PK_GLOBAL("collections", "Counter") ")R."), "'collections.Counter'"},
    {P(PK_BEGIN PK_GLOBAL("collections", "OrderedDict.clear") "."), "nothing was run"},
    {P(PK_BEGIN PK_GLOBAL("collections.OrderedDict", "") "."), "nothing was run"},
    {P(PK_BEGIN PK_GLOBAL("torch", "floatstorage") "."), "nothing was run"},
    {P(PK_BEGIN PK_GLOBAL("_codecs", "encode") "."), "'_codecs.encode'"},
    {P(PK_BEGIN PK_GLOBAL("runpy", "_run_code") "."), "'runpy._run_code'"},
    {P(PK_BEGIN PK_GLOBAL("numpy.core.multiarray", "scalar") "."), "multiarray.scalar"},
    {P(PK_BEGIN PK_GLOBAL("a\33[2J", "b") "."), "whose name is not text"},
    {P(PK_BEGIN PK_GLOBAL("\xff", "b") "."), "whose name is not text"},
    {P(PK_BEGIN "ctorch\nFloatStorage"), "ends inside an instruction"},
    {P(PK_BEGIN "ctorch"), "ends inside an instruction"},
    /* instructions that make objects, or belong to other protocols */
    {P(PK_BEGIN ")\x81."), "instruction NEWOBJ (0x81) is not allowed"},
    {P(PK_BEGIN "\x92."), "NEWOBJ_EX"},
    {P(PK_BEGIN "\x93."), "STACK_GLOBAL"},
    {P(PK_BEGIN "(ios\nsystem\n."), "INST"},
    {P(PK_BEGIN "(o."), "OBJ"},
    {P(PK_BEGIN "\x82\1."), "EXT1"},
    {P(PK_BEGIN "\x8f."), "EMPTY_SET"},
    {P(PK_BEGIN "P0\n."), "PERSID"},
    {P(PK_BEGIN "}2."), "DUP"},
    {P(PK_BEGIN "}}0."), "POP"},
    {P(PK_BEGIN "\x8c\1a."), "SHORT_BINUNICODE"},
    {P(PK_BEGIN "I1\n."), "instruction unknown (0x49)"},
    {P(PK_BEGIN "\xff."), "instruction unknown (0xff)"},
    /* the program as such */
    {P(""), "ends without a STOP"},
    {P(PK_BEGIN), "ends without a STOP"},
    {P("}."), "begins with its protocol, this one with 0x7d"},
    {P("\x80\4}."), "protocol 4"},
    {P("\x80"), "ends inside an instruction"},
    {P(PK_BEGIN "}\x80\2."), "named a second time"},
    {P(PK_BEGIN "."), "stops with 0 values"},
    {P(PK_BEGIN "}}."), "stops with 2 values"},
    {P(PK_BEGIN "(}."), "1 open marks"},
    {P(PK_BEGIN "}" PK_STR1("\1", "a") T0 "s.x"), "1 bytes follow the end"},
    {P(PK_BEGIN "N."), "it ends with None"},
    {P(PK_BEGIN "K\1."), "it ends with an integer"},
    {P(PK_BEGIN "]."), "it ends with a list"},
    {P(PK_BEGIN T0 "."), "it ends with a tensor"},
    {P(PK_BEGIN "}."), "a dictionary of 0 keys"},
    {P(PK_BEGIN "}" PK_STR1("\3", "ema") "}s" PK_STR1("\4", "step") "K\1s."),
     "2 keys, none of which holds a tensor: 'ema', 'step'"},
    /* the stack */
    {P(PK_BEGIN "R."), "takes 2 values, 0 are there"},
    {P(PK_BEGIN "}(s."), "takes 3 values, 0 are there"},
    {P(PK_BEGIN "}K\1(\x86."), "takes 2 values, 0 are there"},
    {P(PK_BEGIN "\x85."), "takes 1 values, 0"},
    {P(PK_BEGIN "K\1\x86."), "takes 2 values, 1"},
    {P(PK_BEGIN "K\1K\1\x87."), "takes 3 values, 2"},
    {P(PK_BEGIN "Q."), "takes 1 values"},
    {P(PK_BEGIN "q\0."), "takes 1 values"},
    {P(PK_BEGIN "t."), "there is no mark"},
    {P(PK_BEGIN "}u."), "there is no mark"},
    {P(PK_BEGIN "]e."), "there is no mark"},
    {P(PK_BEGIN "(u."), "takes 1 values, 0 are there"},
    {P(PK_BEGIN "}q\1."), "value 1 is remembered, 0 was due"},
    {P(PK_BEGIN "}r\xff\xff\xff\xff."), "value 4294967295 is remembered, 0 was due"},
    {P(PK_BEGIN "}q\0q\0."), "value 0 is remembered, 1 was due"},
    {P(PK_BEGIN "h\0."), "value 0 is recalled, 0 are remembered"},
    {P(PK_BEGIN "j\xff\xff\xff\x7f."), "value 2147483647 is recalled"},
    {P(PK_BEGIN "((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((("),
     "more than 64 deep"},
    /* items into what is no container: CVE-2026-24747 */
    {P(PK_BEGIN T0 PK_STR1("\1", "a") "K\1s."), "items are put into a tensor"},
    {P(PK_BEGIN T0 "(K\0K\1u."), "items are put into a tensor"},
    {P(PK_BEGIN S0 "(K\0K\1u."), "items are put into a storage"},
    {P(PK_BEGIN "](K\0K\1u."), "items are put into a list"},
    {P(PK_BEGIN ")(K\0K\1u."), "items are put into a tuple"},
    {P(PK_BEGIN PK_STR1("\1", "a") "(K\0K\1u."), "items are put into a string"},
    {P(PK_BEGIN "}K\1a."), "items are put into a dictionary"},
    {P(PK_BEGIN T0 "(K\1e."), "items are put into a tensor"},
    {P(PK_BEGIN "}(K\1u."), "a key without a value"},
    {P(PK_BEGIN "}NK\1s."), "a dictionary's key is None"},
    {P(PK_BEGIN "}])s."), "a dictionary's key is a list"},
    /* constants */
    {P(PK_BEGIN "J\1\1"), "ends inside an instruction"},
    {P(PK_BEGIN "K"), "ends inside an instruction"},
    {P(PK_BEGIN "M\1"), "ends inside an instruction"},
    {P(PK_BEGIN "G1234567"), "ends inside an instruction"},
    {P(PK_BEGIN "X\xff\xff\xff\xff"
                "abc."),
     "ends inside an instruction"},
    {P(PK_BEGIN "X\2\0\0\0a"), "ends inside an instruction"},
    {P(PK_BEGIN "U\3ab"), "ends inside an instruction"},
    {P(PK_BEGIN "\x8a\x11"
                "12345678901234567."),
     "an integer of 17 bytes, at most 16"},
    {P(PK_BEGIN "\x8a\4"
                "123"),
     "ends inside an instruction"},
    {P(PK_BEGIN "X\2\0\0\0\xc0\xaf."), "a string is not UTF-8"},
    {P(PK_BEGIN "X\3\0\0\0\xed\xa0\x80."), "a string is not UTF-8"},
    {P(PK_BEGIN "U\1\xff."), "a string is not UTF-8"},
    /* storages */
    {P(PK_BEGIN "K\1Q."), "a persistent object that is not"},
    {P(PK_BEGIN ")Q."), "a persistent object that is not"},
    {P(PK_BEGIN "(" PK_STR1("\6", "module") "K\1K\1K\1K\1tQ."), "a persistent object that is not"},
    {P(PK_BEGIN "(" PK_STR1("\7", "storage") "K\1K\1K\1tQ."), "a persistent object that is not"},
    {P(PK_BEGIN "(" PK_STR1("\7", "storage") "K\1K\1K\1K\1tQ."),
     "class, key, place and items are an integer"},
    {P(PK_BEGIN "(" PK_STR1("\7", "storage")
           PK_GLOBAL("torch", "FloatStorage") "K\0" PK_STR1("\3", "cpu") "K\1tQ."),
     "are a name, an integer, a string and an integer"},
    {P(PK_BEGIN PK_STORAGE("FloatStorage", "0", "J\xff\xff\xff\xff") "."), "a storage of -1 items"},
    {P(PK_BEGIN PK_STORAGE("FloatStorage", "0", "\x88") "."), "and a truth value"},
    {P(PK_BEGIN PK_STORAGE("FloatStorage", "\n", "K\1") "."), "key has a control character"},
    {P(PK_BEGIN PK_STORAGE("ComplexFloatStorage", "0", "K\1") "."),
     "a tensor of 'ComplexFloatStorage'"},
    {P(PK_BEGIN PK_STORAGE("QInt8Storage", "0", "K\1") "."), "a tensor of 'QInt8Storage'"},
    {P(PK_BEGIN "(" PK_STR1("\7", "storage") PK_GLOBAL("torch.storage", "UntypedStorage")
           PK_STR1("\1", "0") PK_STR1("\3", "cpu") "K\1tQ."),
     "a storage without a dtype ('UntypedStorage')"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils",
                          "_rebuild_tensor_v3") "(" PK_GLOBAL("torch", "float8_e4m3fn") "tR."),
     "a tensor of dtype torch.float8_e4m3fn"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_tensor_v3") "(" PK_GLOBAL("torch",
                                                                              "uint16") "tR."),
     "a tensor of dtype torch.uint16"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_tensor_v3") ")R."), "'_rebuild_tensor_v3'"},
    /* tensors */
    {P(PK_BEGIN PK_REBUILD ")R."), "a tensor is made of something else"},
    {P(PK_BEGIN PK_REBUILD "(K\0K\0))\x89" PK_DICT "tR."), "a tensor is made of something else"},
    {P(PK_BEGIN PK_REBUILD "(" S0 "K\0" SHAPE STRIDE "\x89" PK_DICT "NtR."),
     "a tensor is made of something else"},
    {P(PK_BEGIN PK_REBUILD "(" S0 "K\0]]\x89" PK_DICT "tR."), "a tensor is made of something else"},
    {P(PK_BEGIN PK_REBUILD "(" S0 "K\0" SHAPE STRIDE "\x89}tR."),
     "a tensor is made of something else"},
    {P(PK_BEGIN PK_REBUILD "(" S0 "K\0" SHAPE STRIDE "\x89" PK_DICT "K\1NstR."),
     "a tensor is made of something else"},
    {P(PK_BEGIN PK_REBUILD "(" S0 "K\0" SHAPE STRIDE "K\0" PK_DICT "tR."),
     "requires_grad is an integer"},
    {P(PK_BEGIN PK_REBUILD "(" PK_STORAGE("LongStorage", "0", "K\14") "K\0" SHAPE STRIDE
                                                                      "\x88" PK_DICT "tR."),
     "requires_grad is a truth value"},
    {IN(PK_TENSOR(S0, "J\xff\xff\xff\xff", SHAPE, STRIDE)), "offset is negative"},
    {IN(PK_TENSOR(S0, "K\0", SHAPE, "K\1\x85")), "2 dimensions, but 1 strides"},
    {IN(PK_TENSOR(S0, "K\0", "J\xff\xff\xff\xff\x85", "K\1\x85")), "size [0] is negative"},
    {IN(PK_TENSOR(S0, "K\0", "K\1\x85", "J\xff\xff\xff\xff\x85")), "stride [0] is negative"},
    {IN(PK_TENSOR(S0, "K\0", "\x88\x85", "K\1\x85")), "size [0] is a truth value"},
    {IN(PK_TENSOR(S0, "K\0", "K\1N\x86", STRIDE)), "size [1] is None"},
    {IN(PK_TENSOR(S0, "K\0",
                  "\x8a\11"
                  "\0\0\0\0\0\0\0\0\1\x85",
                  "K\1\x85")),
     "size [0] is a number"},
    {IN(PK_TENSOR(S0, "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t")),
     "9 dimensions, at most 8"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_parameter") ")R."), "a parameter is made of"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_parameter") "(" S0 "\x89" PK_DICT "tR."),
     "a parameter is made of"},
    {P(PK_BEGIN PK_GLOBAL("torch._utils", "_rebuild_parameter") "(" T0 "N" PK_DICT "tR."),
     "a parameter is made of"},
    {P(PK_BEGIN PK_GLOBAL("torch", "FloatStorage") ")R."),
     "'FloatStorage' is called, which is no function"},
    {P(PK_BEGIN "K\1)R."), "an integer is called with a tuple"},
    {P(PK_BEGIN PK_GLOBAL("collections", "OrderedDict") "]R."), "a name is called with a list"},
    {P(PK_BEGIN PK_GLOBAL("collections", "OrderedDict") "]\x85R."),
     "an OrderedDict that is made with content"},
    {P(PK_BEGIN "}}b."), "a dictionary is given a dictionary as its state"},
    {P(PK_BEGIN PK_DICT "Nb."), "a dictionary is given None as its state"},
    {P(PK_BEGIN T0 "}b."), "a tensor is given a dictionary as its state"},
    /* the dictionary of tensors */
    {P(PK_BEGIN "}(" PK_STR1("\1", "a") T0 PK_STR1("\1", "a") T0 "u."),
     "tensor 'a' is there twice"},
    {P(PK_BEGIN "}(" PK_STR1("\1", "a") T0 "U\1a" T0 "u."), "tensor 'a' is there twice"},
    {P(PK_BEGIN "}(" PK_STR1("\5", "model") "}" PK_STR1("\5", "model") "}u."),
     "the key 'model' is there twice"},
    {P(PK_BEGIN "}" PK_STR1("\3", "\33[m") T0 "s."), "a tensor's name has a control character"},
    {P(PK_BEGIN "}q\0" PK_STR1("\5", "model") "h\0s."),
     "wrapped into one another more than 8 times"},
};

static void every_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        em_pickle p = {0};
        void *block = NULL;
        em_status st = parse(&p, r->program, r->size, &block);
        if (!r->expect && st) fail_msg("row %zu: refused: %s", i, err.msg);
        if (r->expect && (st != EM_FORMAT || !strstr(err.msg, r->expect) ||
                          !strstr(err.msg, "'hostile.pth': data.pkl at byte ")))
            fail_msg("row %zu: expected '%s', got %s: %s", i, r->expect, em_status_text(st),
                     err.msg);
        if (st) assert_true(p.items == 0 && !p.storage && !p.tensor && !p.item);
        em_pickle_close(&p);
        free(block);
    }
}

/* Whatever byte is changed or missing, the answer is yes or a sentence. */
static void every_byte(void **state)
{
    (void)state;
    static const char program[] = PK_BEGIN "}q\0(" PK_STR1("\1", "a") T0 PK_STR1("\1", "b") T0 "u.";
    const size_t n = sizeof program - 1;
    char bent[sizeof program];
    for (size_t i = 0; i < n; i++) {
        for (int v = 0; v < 256; v++) {
            em_pickle p = {0};
            void *block = NULL;
            memcpy(bent, program, n);
            bent[i] = (char)v;
            em_status st = parse(&p, bent, n, &block);
            if (st && (st != EM_FORMAT || !err.msg[0])) fail_msg("byte %zu = %d", i, v);
            em_pickle_close(&p);
            free(block);
        }
        em_pickle p = {0};
        void *block = NULL;
        if (parse(&p, program, i, &block) != EM_FORMAT) fail_msg("%zu bytes of %zu", i, n);
        free(block);
    }
}

static void limits(void **state)
{
    (void)state;
    em_pickle p = {0};
    torch_file f = {0};
    void *block = NULL;
    torch_raw(&f, "\x80\2}", 3);
    for (int i = 0; i < EM_PICKLE_OPS; i++) torch_raw(&f, "N", 1);
    assert_int_equal(parse(&p, f.data, f.size, &block), EM_FORMAT);
    assert_non_null(strstr(err.msg, "more than 1000000 instructions"));
    free(block);
    torch_free(&f);

    char *large = calloc(1, EM_PICKLE_BYTES + 1);
    assert_int_equal(em_pickle_parse(&p, large, EM_PICKLE_BYTES + 1, "hostile.pth", &err),
                     EM_FORMAT);
    assert_non_null(strstr(err.msg, "a program of 67108865 bytes"));
    free(large);

    /* names of 512 bytes and of one more */
    for (int extra = 0; extra < 2; extra++) {
        static const char tensor[] = T0 "s.";
        char name[EM_TENSOR_NAME_BYTES + 1];
        memset(name, 'n', sizeof name);
        torch_raw(&f, "\x80\2}X", 4);
        torch_le(&f, (uint64_t)(EM_TENSOR_NAME_BYTES + extra), 4);
        torch_raw(&f, name, (size_t)(EM_TENSOR_NAME_BYTES + extra));
        torch_raw(&f, tensor, sizeof tensor - 1);
        em_status st = parse(&p, f.data, f.size, &block);
        if (!extra) assert_ok(st, err);
        if (extra) assert_int_equal(st, EM_FORMAT);
        if (extra) assert_non_null(strstr(err.msg, "has 513 bytes, at most 512 are read"));
        em_pickle_close(&p);
        free(block);
        torch_free(&f);
    }
}

static void every_allocation(void **state)
{
    (void)state;
    static const char program[] = PK_BEGIN "}q\0(" PK_STR1("\1", "a") T0 PK_STR1("\1", "b") T0 "u.";
    for (int sticky = 0; sticky < 2; sticky++) {
        em_status st = EM_NOMEM;
        for (uint64_t n = 1; st; n++) {
            em_pickle p = {0};
            em_alloc_fail_at(n, sticky);
            st = em_pickle_parse(&p, program, sizeof program - 1, "good.pth", &err);
            em_alloc_fail_at(0, false);
            if (st && st != EM_NOMEM) fail_msg("allocation %d: %s", (int)n, err.msg);
            em_pickle_close(&p);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),  cmocka_unit_test(every_rule),       cmocka_unit_test(every_byte),
        cmocka_unit_test(limits), cmocka_unit_test(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
