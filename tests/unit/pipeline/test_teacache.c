#include "pipeline/teacache.h"

#include "../golden.h"
#include "base/alloc.h"

/* The reference takes its means in float32; the polynomial's slope (up to some 10^3) amplifies that
 * rounding. Relative to the distance, or absolute below 1. */
#define DISTANCE_BOUND 2e-6

/* One list of teacache.json. */
typedef struct list {
    double threshold;
    int skip_start, steps, branches;
    size_t forwards, width;
    float *e0; /* (forwards, width) */
    const json_t *computes, *distance;
} list;

static int get_int(const json_t *obj, const char *key)
{
    return (int)json_integer_value(json_object_get(obj, key));
}

static list read_list(const json_t *obj)
{
    const json_t *rows = json_object_get(obj, "e0");
    list l = {
        .threshold = json_number_value(json_object_get(obj, "threshold")),
        .skip_start = get_int(obj, "num_skip_start_steps"),
        .steps = get_int(obj, "num_inference_steps"),
        .branches = get_int(obj, "forwards_per_step"),
        .forwards = json_array_size(rows),
        .width = json_array_size(json_array_get(rows, 0)),
        .computes = json_object_get(obj, "computes"),
        .distance = json_object_get(obj, "accumulated_after"),
    };
    l.e0 = em_alloc_array(l.forwards * l.width, sizeof *l.e0);
    assert_non_null(l.e0);
    for (size_t i = 0; i < l.forwards * l.width; i++)
        l.e0[i] = (float)json_number_value(
            json_array_get(json_array_get(rows, i / l.width), i % l.width));
    return l;
}

static bool golden_computes(const list *l, size_t forward)
{
    return json_integer_value(json_array_get(l->computes, forward)) != 0;
}

/* The reference's decisions, forward by forward. Returns the worst distance error. */
static double check_decisions(const list *l)
{
    em_teacache t = em_teacache_begin(EM_TEACACHE_REFERENCE, l->threshold, l->skip_start, l->steps);
    double worst = 0;
    for (size_t i = 0; i < l->forwards; i++) {
        bool compute = em_teacache_decide(&t, l->e0 + i * l->width, l->width);
        if (compute != golden_computes(l, i)) fail_msg("forward %zu: computes %d", i, compute);
        double want = json_number_value(json_array_get(l->distance, i));
        double error = fabs(t.distance - want) / fmax(1, fabs(want));
        assert_false(isnan(error));
        if (error > worst) worst = error;
    }
    return worst;
}

/* Step i's row: the list's branches share it. */
static float *step_rows(const list *l)
{
    float *rows = em_alloc_array((size_t)l->steps * l->width, sizeof *rows);
    assert_non_null(rows);
    for (size_t i = 0; i < (size_t)l->steps; i++) {
        const float *row = l->e0 + i * (size_t)l->branches * l->width;
        memcpy(rows + i * l->width, row, l->width * sizeof *row);
    }
    return rows;
}

/* Runs a plan with residuals that are just numbers: no slot is read that was not written, and what
 * a REUSE reads is the newest forward computed (of its own branch, in branch mode). */
static void check_slots(const em_step_plan *plan, int steps, em_teacache_mode mode)
{
    int slot[EM_TEACACHE_SLOTS] = {-1, -1}, newest[EM_BRANCHES] = {-1, -1}, id = 0;
    for (int i = 0; i < steps; i++)
        for (int b = 0; b < EM_BRANCHES; b++, id++) {
            const em_forward *f = &plan[i].forward[b];
            int who = mode == EM_TEACACHE_BRANCH ? b : 0;
            if (f->kind == EM_FORWARD_COMPUTE) {
                newest[who] = id;
                if (f->slot != EM_NO_SLOT) slot[f->slot] = id;
            } else if (f->kind == EM_FORWARD_REUSE) {
                assert_in_range(f->slot, 0, EM_TEACACHE_SLOTS - 1);
                assert_int_not_equal(slot[f->slot], -1);
                assert_int_equal(slot[f->slot], newest[who]);
            }
        }
}

/* "0" for a forward, "1" after it when its blocks ran: report.json's spelling. */
static void calls_text(char *out, const em_step_plan *plan, int steps)
{
    for (int i = 0; i < steps; i++)
        for (int b = 0; b < EM_BRANCHES; b++) {
            em_forward_kind kind = plan[i].forward[b].kind;
            if (kind != EM_FORWARD_NONE) *out++ = '0';
            if (kind == EM_FORWARD_COMPUTE) *out++ = '1';
        }
    *out = '\0';
}

static void check_plan(const list *l, const char *calls)
{
    em_step_plan plan[64];
    float *rows = step_rows(l);
    em_guidance_plan(plan, l->steps, l->branches == 2 ? 6 : 1, 0);
    em_teacache t = em_teacache_begin(EM_TEACACHE_REFERENCE, l->threshold, l->skip_start, l->steps);
    em_teacache_plan(&t, plan, l->steps, rows, l->width);
    for (int i = 0; i < l->steps; i++)
        for (int b = 0; b < l->branches; b++) {
            bool compute = golden_computes(l, (size_t)(i * l->branches + b));
            assert_int_equal(plan[i].forward[b].kind,
                             compute ? EM_FORWARD_COMPUTE : EM_FORWARD_REUSE);
        }
    check_slots(plan, l->steps, EM_TEACACHE_REFERENCE);
    if (calls) {
        char text[256];
        calls_text(text, plan, l->steps);
        assert_string_equal(text, calls);
    }
    em_free(rows);
}

/* With one forward a step the reference decides by step, as branch mode always does. */
static void check_branch_mode(const list *l)
{
    em_step_plan plan[64];
    em_guidance_plan(plan, l->steps, 6, 0.25);
    em_teacache t = em_teacache_begin(EM_TEACACHE_BRANCH, l->threshold, l->skip_start, l->steps);
    em_teacache_plan(&t, plan, l->steps, l->e0, l->width);
    for (int i = 0; i < l->steps; i++) {
        const em_forward *f = plan[i].forward;
        em_forward_kind want =
            golden_computes(l, (size_t)i) ? EM_FORWARD_COMPUTE : EM_FORWARD_REUSE;
        bool guided = i < l->steps * 0.75;
        assert_int_equal(f[EM_BRANCH_AUDIO].kind, want);
        assert_int_equal(f[EM_BRANCH_SILENT].kind, guided ? want : EM_FORWARD_NONE);
    }
    check_slots(plan, l->steps, EM_TEACACHE_BRANCH);
}

static void goldens(void **state)
{
    (void)state;
    json_t *doc = golden_json("tiny/teacache.json"), *report = golden_json("tiny/report.json");
    const char *calls =
        json_string_value(json_object_get(json_object_get(report, "report"),
                                          "Flow_Unipc.teacache.calls(0=forward,1=blocks ran)"));
    assert_non_null(calls);
    double worst = 0;
    for (size_t i = 0; i < json_array_size(doc); i++) {
        list l = read_list(json_array_get(doc, i));
        double error = check_decisions(&l);
        if (error > worst) worst = error;
        /* The first list has the decisions of report.json's run. */
        check_plan(&l, i == 0 ? calls : NULL);
        if (l.branches == 1) check_branch_mode(&l);
        em_free(l.e0);
    }
    print_message("distance off by at most %.2g\n", worst);
    assert_true(worst <= DISTANCE_BOUND);
    json_decref(doc);
    json_decref(report);
}

/* skip_start is clamped to 1..steps; a residual that nobody reads is not kept. */
static void clamps_and_trims(void **state)
{
    (void)state;
    enum { STEPS = 4 };
    const float same[STEPS] = {1, 1, 1, 1};
    em_step_plan plan[STEPS];
    em_teacache t = em_teacache_begin(EM_TEACACHE_BRANCH, 0.1, 0, STEPS);
    em_guidance_plan(plan, STEPS, 6, 0);
    em_teacache_plan(&t, plan, STEPS, same, 1);
    for (int b = 0; b < EM_BRANCHES; b++) {
        assert_int_equal(plan[0].forward[b].kind, EM_FORWARD_COMPUTE);
        assert_int_equal(plan[0].forward[b].slot, b);
        for (int i = 1; i < STEPS; i++) assert_int_equal(plan[i].forward[b].kind, EM_FORWARD_REUSE);
    }

    t = em_teacache_begin(EM_TEACACHE_BRANCH, 0.1, 9, STEPS);
    assert_int_equal(t.skip_start, STEPS);
    em_guidance_plan(plan, STEPS, 6, 0);
    em_teacache_plan(&t, plan, STEPS, same, 1);
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(plan[i].forward[EM_BRANCH_SILENT].kind, EM_FORWARD_COMPUTE);
        assert_int_equal(plan[i].forward[EM_BRANCH_SILENT].slot, EM_NO_SLOT);
    }

    t = em_teacache_begin(EM_TEACACHE_OFF, 0.1, 1, STEPS);
    em_teacache_plan(&t, plan, STEPS, same, 1);
    assert_int_equal(plan[3].forward[EM_BRANCH_AUDIO].kind, EM_FORWARD_COMPUTE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens),
        cmocka_unit_test(clamps_and_trims),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
