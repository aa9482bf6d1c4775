/* Memory along time, as a drawing: the stages from left to right, the device's block above, the
 * process in host memory below, and what was allowed as a line across. */
#include "pipeline/job.h"

enum {
    WIDTH = 1040,
    LEFT = 84,
    RIGHT = 20,
    TOP = 64,
    PANEL = 190,
    GAP = 74,
    PLOT = WIDTH - LEFT - RIGHT,
    HEIGHT = TOP + 2 * PANEL + GAP + 66,
};

/* One of the two diagrams. */
typedef struct panel {
    em_str *out;
    int top;
    double most_ms, most_bytes;
} panel;

static double x_of(const panel *p, double ms)
{
    return LEFT + PLOT * ms / p->most_ms;
}

static double y_of(const panel *p, double bytes)
{
    return p->top + PANEL - PANEL * bytes / p->most_bytes;
}

/* 1, 2 or 5 times a power of ten (of two, for bytes), so that there are at most `lines` of them. */
static double nice_step(double most, int lines, double unit)
{
    static const double factor[] = {1, 2, 5};
    double step = unit;
    for (int i = 0; most / step > lines; i++) {
        if (i % 3 == 2) unit *= 10;
        step = unit * factor[(i + 1) % 3];
    }
    return step;
}

static double byte_step(double most)
{
    double step = 1 << 20;
    while (most / step > 5) step *= 2;
    return step;
}

static void draw_grid(panel *p, const char *title)
{
    char bytes[16];
    em_str *o = p->out;
    double step = byte_step(p->most_bytes);
    em_str_printf(o, "<text class=\"title\" x=\"%d\" y=\"%d\">%s</text>\n", LEFT, p->top - 10,
                  title);
    for (int i = 0; i * step <= p->most_bytes; i++) {
        double v = i * step;
        em_str_printf(o,
                      "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text class=\"tick\" x=\"%d\" "
                      "y=\"%.1f\">%s</text>\n",
                      LEFT, y_of(p, v), LEFT + PLOT, LEFT - 8, y_of(p, v) + 4,
                      v > 0 ? em_format_bytes(bytes, (unsigned long long)v) : "0");
    }
    step = nice_step(p->most_ms / 1000, 10, 0.01);
    for (int i = 0; i * step <= p->most_ms / 1000; i++)
        em_str_printf(o, "<text class=\"time\" x=\"%.1f\" y=\"%d\">%.4g s</text>\n",
                      x_of(p, i * step * 1000), p->top + PANEL + 16, i * step);
}

/* A line across that says what was allowed or planned. */
static void draw_limit(panel *p, const char *kind, const char *what, uint64_t bytes)
{
    char text[16];
    if (!bytes || (double)bytes > p->most_bytes) return;
    double y = y_of(p, (double)bytes);
    em_str_printf(p->out,
                  "<path class=\"%s\" d=\"M%d %.1fH%d\"/><text class=\"limit\" x=\"%d\" "
                  "y=\"%.1f\">%s %s</text>\n",
                  kind, LEFT, y, LEFT + PLOT, LEFT + PLOT - 4, y - 5, what,
                  em_format_bytes(text, bytes));
}

typedef double (*value_fn)(const em_memory_sample *s);

static double weights_of(const em_memory_sample *s)
{
    return (double)s->weights_bytes;
}

static double block_of(const em_memory_sample *s)
{
    return (double)(s->weights_bytes + s->scratch_bytes);
}

static double mapped_of(const em_memory_sample *s)
{
    return (double)s->mapped_bytes;
}

static double rss_of(const em_memory_sample *s)
{
    return (double)s->rss_bytes;
}

/* Steps: a value holds until the next sample. */
static void draw_area(panel *p, const em_memory_report *r, const em_memory_job *j, value_fn value,
                      const char *kind)
{
    if (j->end <= j->begin) return;
    double last = r->sample[j->end - 1].ms;
    em_str_printf(p->out, "<path class=\"%s\" d=\"M%.1f %d", kind, x_of(p, r->sample[j->begin].ms),
                  p->top + PANEL);
    for (size_t i = j->begin; i < j->end; i++)
        em_str_printf(p->out, "V%.1fH%.1f", y_of(p, value(&r->sample[i])),
                      x_of(p, i + 1 < j->end ? r->sample[i + 1].ms : last));
    em_str_printf(p->out, "V%dZ\"/>\n", p->top + PANEL);
}

/* Bands of alternating grey over both panels, with names where they are wide enough. */
static void draw_stages(em_str *o, const em_memory_report *r, const panel *p)
{
    int n = 0, bottom = TOP + 2 * PANEL + GAP;
    for (size_t k = 0; k < r->jobs; k++)
        for (size_t i = r->job[k].begin, next; i < r->job[k].end; i = next) {
            em_stage stage = r->sample[i].stage;
            for (next = i; next < r->job[k].end && r->sample[next].stage == stage;) next++;
            size_t end = next < r->job[k].end ? next : next - 1;
            double x = x_of(p, r->sample[i].ms), w = x_of(p, r->sample[end].ms) - x;
            em_str_printf(o,
                          "<rect class=\"band%d\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" "
                          "height=\"%d\"><title>%s</title></rect>\n",
                          n++ % 2, x, TOP, w, bottom - TOP, em_stage_name(stage));
            if (w > 52)
                em_str_printf(o, "<text class=\"stage\" x=\"%.1f\" y=\"%d\">%s</text>\n", x + w / 2,
                              TOP + 14, em_stage_name(stage));
        }
}

static void draw_key(em_str *o)
{
    static const struct {
        const char *kind, *text;
    } key[] = {{"weights", "weights in the block"},
               {"scratch", "scratch (the stage's peak so far)"},
               {"rss", "process in memory"},
               {"mapped", "of it, weights used where their files are mapped (plan's count)"}};
    static const int at[] = {0, 170, 400, 540};
    int y = HEIGHT - 24;
    for (int i = 0; i < 4; i++)
        em_str_printf(o,
                      "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"14\" height=\"10\"/>"
                      "<text class=\"key\" x=\"%d\" y=\"%d\">%s</text>\n",
                      key[i].kind, LEFT + at[i], y, LEFT + at[i] + 19, y + 9, key[i].text);
}

static void draw_head(em_str *o, const em_memory_report *r)
{
    em_str_printf(
        o,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
        "height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<style>.band0{fill:#f4f4f1}.band1{fill:#e9e9e4}.grid{stroke:#fff;fill:none}"
        ".title{font-weight:bold}.tick{text-anchor:end;fill:#555}.time,.stage{text-anchor:middle;"
        "fill:#555}.limit{text-anchor:end;fill:#a02020}.budget{stroke:#c03030;stroke-width:1.5;"
        "fill:none}.planned{stroke:#c03030;stroke-dasharray:5 4;fill:none}.weights{fill:#3b6ea5}"
        ".scratch{fill:#e0a33e}.rss{fill:#8fb996}.mapped{fill:#4d7c5a}.key{fill:#333}</style>\n"
        "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n"
        "<text x=\"%d\" y=\"24\" font-size=\"15\" font-weight=\"bold\">%s on %s, %zu "
        "job%s</text>\n",
        WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT, r->mode, r->device, r->jobs,
        r->jobs == 1 ? "" : "s");
}

/* A little room above the highest line. */
static double span(double most)
{
    return most > 0 ? most * 1.12 : 1;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

void em_memory_svg(em_str *out, const em_memory_report *r)
{
    panel device = {.out = out, .top = TOP}, host = {.out = out, .top = TOP + PANEL + GAP};
    uint64_t block = 0, forecast = 0;
    for (size_t i = 0; i < r->jobs; i++) {
        const em_result *p = &r->job[i].plan;
        if (p->device_bytes > block) block = p->device_bytes;
        if (p->host_bytes > forecast) forecast = p->host_bytes;
    }
    device.most_bytes = (double)block;
    host.most_bytes = (double)forecast;
    device.most_ms = r->samples ? larger(r->sample[r->samples - 1].ms, 1) : 1;
    host.most_ms = device.most_ms;
    for (size_t i = 0; i < r->samples; i++)
        host.most_bytes = larger(host.most_bytes, (double)r->sample[i].rss_bytes);
    /* A budget far above what is used would flatten the rest: it is left out of the picture. */
    if ((double)r->device_budget < 3 * device.most_bytes)
        device.most_bytes = larger(device.most_bytes, (double)r->device_budget);
    if ((double)r->host_budget < 3 * host.most_bytes)
        host.most_bytes = larger(host.most_bytes, (double)r->host_budget);
    device.most_bytes = span(device.most_bytes);
    host.most_bytes = span(host.most_bytes);
    draw_head(out, r);
    draw_stages(out, r, &device);
    draw_grid(&device, r->host ? "block: scratch and converted weights" : "block on the device");
    draw_grid(&host, "process in host memory");
    for (size_t i = 0; i < r->jobs; i++) {
        draw_area(&device, r, &r->job[i], block_of, "scratch");
        draw_area(&device, r, &r->job[i], weights_of, "weights");
        draw_area(&host, r, &r->job[i], rss_of, "rss");
        draw_area(&host, r, &r->job[i], mapped_of, "mapped");
    }
    draw_limit(&device, "planned", "planned block", block);
    draw_limit(&device, "budget", "--vram_budget", r->device_budget);
    draw_limit(&host, "planned", "forecast", forecast);
    draw_limit(&host, "budget", "--ram_budget", r->host_budget);
    draw_key(out);
    em_str_printf(out, "</svg>\n");
}
