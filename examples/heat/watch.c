/*
 * Follows a run of the heat solver while it runs: a process of its own that is told of each step as it is committed.
 *
 * For each step it opens that step's snapshot with HDF5, checks that the whole file is from one iteration and matches the
 * checksums that the solver stored, and draws the field as a picture.  It also asks the system whether a later epoch was
 * being written meanwhile.  The solver knows nothing of any of this.
 *
 * Exit status: 0 every step arrived and was whole, 1 not so, 2 wrong usage, 3 the run was lost before its end.
 */
#include "picture.h"
#include "snapshot.h"

#include <errno.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <talea.h>
#include <time.h>
#include <unistd.h>

#define PICTURE_WIDTH 1024
#define CONNECT_MS 30000
#define WAIT_MS 1000
#define WRITERS_S 2.0

typedef struct {
    const char *container, *file, *pictures, *report;
    long steps;      /* how many steps must arrive at least; also the length of the progress bar */
    long again;      /* read each step again and again until the next one is there: it must not change */
    long patience_s; /* how long to wait for the next step */
} options_t;

typedef struct {
    uint64_t received, whole, read_while_open, lag_steps_max, pictures, bytes_read;
    double first_s, last_s, reading_s;   /* of the first notice, of the last; time spent reading */
    int64_t last_iteration;              /* of the step before, 0 at first */
    uint64_t last_digest;
    snapshot_t snapshot;
    talea_container_info_t info;         /* as last asked */
} run_t;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Says what went wrong, on a line of its own also when a progress bar is being drawn. */
static void complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%swatch: ", isatty(STDERR_FILENO) ? "\r\033[K" : "");
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: watch [--container NAME] [--file PATH] [--pictures DIR] [--report FILE] [--steps N] [--patience SECONDS] [--again 1]\n"
    "  --container  the container to follow (run)\n"
    "  --file       the solver's file in it (heat.h5)\n"
    "  --pictures   directory for the pictures; without it none are drawn\n"
    "  --report     where to write the summary as JSON\n"
    "  --steps      how many steps must arrive at least (1)\n"
    "  --patience   how long to wait for a step (300)\n"
    "  --again      1: read each step again and again until the next one is there, which must change nothing\n";

static int parse(int argc, char **argv, options_t *o)
{
    *o = (options_t){.container = "run", .file = "heat.h5", .steps = 1, .patience_s = 300};
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        int known = 1;
        if (value == NULL)
            known = 0;
        else if (strcmp(name, "--container") == 0)
            o->container = value;
        else if (strcmp(name, "--file") == 0)
            o->file = value;
        else if (strcmp(name, "--pictures") == 0)
            o->pictures = value;
        else if (strcmp(name, "--report") == 0)
            o->report = value;
        else if (strcmp(name, "--steps") == 0)
            known = (o->steps = atol(value)) > 0;
        else if (strcmp(name, "--again") == 0)
            known = (o->again = atol(value)) > 0;
        else if (strcmp(name, "--patience") == 0)
            known = (o->patience_s = atol(value)) > 0;
        else
            known = 0;
        if (!known) {
            fprintf(stderr, "watch: bad argument: %s\n%s", name, usage);
            return 0;
        }
    }
    return 1;
}

/* ---- one step ---- */

static int ask(talea_container_t *container, run_t *r)
{
    if (talea_container_query(container, &r->info) == TALEA_OK)
        return 0;
    complain("cannot query the container: %s", talea_error());
    return -1;
}

/* Whether the step follows from the one before.  Closing the file may commit once more without a new iteration. */
static int moved_on(run_t *r, char *reason, size_t bytes)
{
    const snapshot_t *s = &r->snapshot;
    int first = r->last_iteration == 0, closing = s->iteration == r->last_iteration && s->digest == r->last_digest;
    int64_t before = r->last_iteration;
    r->last_iteration = s->iteration;
    r->last_digest = s->digest;
    if (first || closing || s->iteration == before + 1)
        return 1;
    snprintf(reason, bytes, "iteration %lld follows iteration %lld", (long long)s->iteration, (long long)before);
    return 0;
}

static void draw(const options_t *o, run_t *r, uint64_t step)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/step-%04llu.png", o->pictures, (unsigned long long)step);
    if (picture_write(path, r->snapshot.field, r->snapshot.nx, r->snapshot.ny, PICTURE_WIDTH) == 0)
        r->pictures++;
    else
        complain("cannot write %s: %s", path, strerror(errno));
}

static void progress(const options_t *o, const run_t *r, uint64_t step)
{
    enum { WIDTH = 40 };
    if (!isatty(STDERR_FILENO))
        return;
    uint64_t done = step * WIDTH / (uint64_t)o->steps;
    fprintf(stderr, "\r\033[Kstep %llu of %ld [", (unsigned long long)step, o->steps);
    for (uint64_t i = 0; i < WIDTH; i++)
        fputc(i < done ? '#' : '.', stderr);
    fprintf(stderr, "] %llu whole, %llu read while the next was written", (unsigned long long)r->whole,
            (unsigned long long)r->read_while_open);
    fflush(stderr);
}

/*
 * Waits until a later epoch has something pending, so that the step is read while the next one is being written, however much faster
 * this program is than the solver's computing.  Not for the last step, which nothing follows.
 */
static int let_writers_begin(const options_t *o, talea_container_t *container, run_t *r, const talea_step_t *step)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    double until = now_s() + WRITERS_S;
    if (ask(container, r) != 0)
        return -1;
    while (r->info.pending_updates == 0 && r->info.steps == step->step && (long)step->step < o->steps && now_s() < until) {
        nanosleep(&pause, NULL);
        if (ask(container, r) != 0)
            return -1;
    }
    return 0;
}

/* Reads a step until there is a later one.  0: it is whole each time, and what it was at first. */
static int read_again(const options_t *o, talea_container_t *container, run_t *r, const char *path, char *reason, size_t bytes)
{
    uint64_t steps = r->info.steps, digest = r->snapshot.digest;
    while (o->again && r->info.steps == steps && (long)steps < o->steps) {
        if (snapshot_read(path, &r->snapshot, reason, bytes) != 0)
            return -1;
        if (r->snapshot.digest != digest) {
            snprintf(reason, bytes, "it was read again, and is another iteration");
            return -1;
        }
        if (ask(container, r) != 0)
            return -1;
    }
    return 0;
}

/* Reads, checks and draws one committed step.  Returns 0 also when the step was not whole; -1 when asking failed. */
static int take(const options_t *o, talea_container_t *container, run_t *r, const talea_step_t *step)
{
    char path[4096], reason[512] = "";
    if (r->received++ == 0)
        r->first_s = now_s();
    snprintf(path, sizeof path, "/talea/%s/.talea/steps/%llu/%s", o->container, (unsigned long long)step->step, o->file);
    if (let_writers_begin(o, container, r, step) != 0)
        return -1;
    double began = now_s();
    int open = r->info.pending_updates > 0; /* what is pending now is of a later epoch: this one is committed */
    int whole = snapshot_read(path, &r->snapshot, reason, sizeof reason) == 0;
    r->last_s = now_s();
    r->reading_s += r->last_s - began;
    if (ask(container, r) != 0)
        return -1;
    open |= r->info.pending_updates > 0;
    r->read_while_open += (uint64_t)open;
    if (r->info.steps > step->step && r->info.steps - step->step > r->lag_steps_max)
        r->lag_steps_max = r->info.steps - step->step;
    if (whole) {
        r->bytes_read += (uint64_t)(r->snapshot.nx * r->snapshot.ny) * sizeof(double);
        whole = moved_on(r, reason, sizeof reason) && read_again(o, container, r, path, reason, sizeof reason) == 0;
        if (o->pictures != NULL)
            draw(o, r, step->step);
    } else {
        r->last_iteration = 0; /* nothing to compare the next step with */
    }
    if (whole)
        r->whole++;
    else
        complain("step %llu is not whole: %s", (unsigned long long)step->step, reason);
    progress(o, r, step->step);
    return 0;
}

/* ---- the run ---- */

/* Takes steps until the run ends, and returns the exit status that the ending alone calls for. */
static int follow(const options_t *o, talea_container_t *container, talea_subscription_t *subscription, run_t *r)
{
    double waiting_since = now_s();
    for (;;) {
        talea_step_t step;
        int outcome = talea_wait(subscription, WAIT_MS, &step);
        switch (outcome) {
        case TALEA_OK:
            if (take(o, container, r, &step) != 0)
                return 1;
            waiting_since = now_s();
            break;
        case TALEA_NOT_READY:
            if (now_s() - waiting_since > (double)o->patience_s) {
                complain("no step for %ld s: the run is stuck, or needs a longer --patience", o->patience_s);
                return 1;
            }
            break;
        case TALEA_END:
            return ask(container, r) == 0 ? 0 : 1;
        case TALEA_PRODUCER_LOST:
            complain("the run was lost after step %llu; a next run can go on from there", (unsigned long long)r->info.steps);
            return 3;
        default:
            complain("cannot follow %s: %s", o->container, talea_error());
            return 1;
        }
    }
}

/* The container may not exist before the solver's first create: try until the time is over. */
static int open_container(const options_t *o, talea_system_t *system, talea_container_t **container)
{
    const struct timespec pause = {.tv_nsec = 50000000};
    double until = now_s() + CONNECT_MS / 1000.0;
    while (talea_container_open(system, o->container, container) != TALEA_OK) {
        if (now_s() > until) {
            complain("cannot open the container %s: %s", o->container, talea_error());
            return -1;
        }
        nanosleep(&pause, NULL);
    }
    return 0;
}

static int follow_container(const options_t *o, run_t *r)
{
    talea_system_t *system = NULL;
    talea_container_t *container = NULL;
    talea_subscription_t *subscription = NULL;
    int status = 1;
    if (talea_connect(NULL, CONNECT_MS, &system) != TALEA_OK) {
        complain("cannot reach the storage system: %s", talea_error());
        return 1;
    }
    if (open_container(o, system, &container) == 0) {
        if (talea_subscribe(container, 0, &subscription) == TALEA_OK) {
            status = follow(o, container, subscription, r);
            talea_unsubscribe(subscription);
        } else {
            complain("cannot subscribe to %s: %s", o->container, talea_error());
        }
        talea_container_close(container);
    }
    talea_disconnect(system);
    return status;
}

/* ---- the summary ---- */

static int write_report(const options_t *o, const run_t *r)
{
    double seconds = r->last_s - r->first_s;
    FILE *f = fopen(o->report, "w");
    if (f == NULL) {
        complain("cannot write %s: %s", o->report, strerror(errno));
        return -1;
    }
    fprintf(f, "{\n  \"steps\": %llu,\n  \"steps_received\": %llu,\n  \"steps_read_while_open\": %llu,\n"
               "  \"steps_whole\": %llu,\n  \"bytes\": %llu,\n  \"ranks\": %lld,\n  \"servers\": %llu,\n"
               "  \"lag_steps_max\": %llu,\n",
            (unsigned long long)r->info.steps, (unsigned long long)r->received, (unsigned long long)r->read_while_open,
            (unsigned long long)r->whole, (unsigned long long)r->info.bytes_written, (long long)r->snapshot.ranks,
            (unsigned long long)r->info.servers, (unsigned long long)r->lag_steps_max);
    fprintf(f, "  \"seconds\": %.3f,\n  \"bytes_per_second\": %.0f,\n  \"bytes_read\": %llu,\n  \"seconds_reading\": %.3f,\n"
               "  \"pictures\": %llu\n}\n",
            seconds, seconds > 0 ? (double)r->info.bytes_written / seconds : 0, (unsigned long long)r->bytes_read,
            r->reading_s, (unsigned long long)r->pictures);
    if (fclose(f) != 0) {
        complain("cannot write %s: %s", o->report, strerror(errno));
        return -1;
    }
    return 0;
}

static void summarise(const options_t *o, const run_t *r)
{
    double seconds = r->last_s - r->first_s, written = (double)r->info.bytes_written;
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    printf("steps    %llu committed, %llu received, %llu whole, %llu read while a later epoch was being written\n",
           (unsigned long long)r->info.steps, (unsigned long long)r->received, (unsigned long long)r->whole,
           (unsigned long long)r->read_while_open);
    printf("written  %.1f MiB by %lld ranks to %llu servers", written / 1048576, (long long)r->snapshot.ranks,
           (unsigned long long)r->info.servers);
    if (seconds > 0)
        printf(", %.1f MiB/s and %.1f epochs/s from the first step to the last", written / 1048576 / seconds,
               (double)r->received / seconds);
    printf("\nread     %.1f MiB and checked", (double)r->bytes_read / 1048576);
    if (r->reading_s > 0)
        printf(", at %.1f MiB/s", (double)r->bytes_read / 1048576 / r->reading_s);
    printf("; at most %llu steps behind the writers\n", (unsigned long long)r->lag_steps_max);
    if (r->pictures > 0)
        printf("pictures %s/step-0001.png and on, %llu of them\n", o->pictures, (unsigned long long)r->pictures);
    if (o->report != NULL)
        printf("report   %s\n", o->report);
}

static int watch(const options_t *o)
{
    run_t r = {0};
    if (o->pictures != NULL && mkdir(o->pictures, 0777) != 0 && errno != EEXIST) {
        complain("cannot make the directory %s: %s", o->pictures, strerror(errno));
        return 1;
    }
    int status = follow_container(o, &r);
    if (status == 0 && (r.received != r.info.steps || r.whole != r.received || r.received < (uint64_t)o->steps)) {
        complain("of %llu steps (at least %ld were expected) %llu arrived and %llu were whole",
                 (unsigned long long)r.info.steps, o->steps, (unsigned long long)r.received, (unsigned long long)r.whole);
        status = 1;
    }
    summarise(o, &r);
    if (o->report != NULL && write_report(o, &r) != 0 && status == 0)
        status = 1;
    snapshot_free(&r.snapshot);
    return status;
}

int main(int argc, char **argv)
{
    options_t o;
    if (!parse(argc, argv, &o))
        return 2;
    MPI_Init(&argc, &argv);
    int status = watch(&o);
    MPI_Finalize();
    return status;
}
