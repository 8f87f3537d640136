/*
 * Operations in flight as a C program uses and misuses them: commits under updates that have not ended, threads that share a queue, and servers that
 * stand still meanwhile.  Its arguments are the servers' processes, which it stops and wakes.  Runs under `talea run`.
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <talea.h>
#include <unistd.h>

static void check(int line, int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "queue:%d: %s does not hold; last error: %s\n", line, what, talea_error());
    exit(1);
}
#define CHECK(condition) check(__LINE__, (condition), #condition)
#define OK(call) CHECK((call) == TALEA_OK)
/* The call returns this code, and the text has this word. */
#define FAILS(call, code, word) CHECK((call) == (code) && strstr(talea_error(), (word)) != NULL)

enum { UPDATES = 200, BLOCK = 4096, HASTY_MS = 1000, LONG_MS = 60000 };

static pid_t servers[16];
static int server_count;

/* Whether all threads of a process stand still: they do so some time after the signal. */
static int is_stopped(pid_t server)
{
    char path[300], line[512];
    struct dirent *task;
    int stopped = 1;
    snprintf(path, sizeof path, "/proc/%d/task", (int)server);
    DIR *tasks = opendir(path);
    CHECK(tasks != NULL);
    while ((task = readdir(tasks)) != NULL) {
        if (task->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/stat", (int)server, task->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue; /* it has ended */
        char *end = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
        stopped &= end != NULL && end[2] == 'T';
        fclose(file);
    }
    closedir(tasks);
    return stopped;
}

static void tell_servers(int signal)
{
    for (int i = 0; i < server_count; i++)
        CHECK(kill(servers[i], signal) == 0);
    for (int i = 0; signal == SIGSTOP && i < server_count; i++)
        while (!is_stopped(servers[i]))
            usleep(1000);
}

/* Whatever fails, they do not stay stopped. */
static void wake_servers(void)
{
    for (int i = 0; i < server_count; i++)
        (void)kill(servers[i], SIGCONT);
}

static char names[UPDATES][8];

static talea_update_t update_of(int i)
{
    snprintf(names[i], sizeof names[i], "k%d", i);
    return (talea_update_t){.key = {names[i], strlen(names[i]), "a", 1}, .data = "value", .data_bytes = 5};
}

static int count_name(void *context, const void *name, size_t name_bytes)
{
    CHECK(name != NULL && name_bytes > 0);
    ++*(int *)context;
    return 0;
}

/* Dkeys that everybody sees. */
static int committed(talea_container_t *run, talea_oid_t oid)
{
    int names_seen = 0;
    OK(talea_object_list(run, NULL, NULL, oid, NULL, 0, count_name, &names_seen));
    return names_seen;
}

static void start_all(talea_container_t *run, talea_epoch_t *epoch, talea_oid_t oid, talea_queue_t *queue)
{
    for (int i = 0; i < UPDATES; i++) {
        talea_update_t update = update_of(i);
        OK(talea_object_update_start(run, epoch, oid, &update, 1, queue, NULL, NULL));
    }
}

/* Takes the ends of so many operations, all of which are well. */
static void take(talea_queue_t *queue, size_t expected)
{
    talea_event_t events[32];
    size_t told;
    for (size_t all = 0; all < expected; all += told) {
        OK(talea_queue_poll(queue, LONG_MS, events, 32, &told));
        CHECK(told > 0);
        for (size_t i = 0; i < told; i++)
            CHECK(events[i].code == TALEA_OK);
    }
}

/* A commit under updates in flight is refused, and loses nothing. */
static void commits(talea_system_t *system, talea_container_t *run)
{
    talea_update_t update = {.key = {"before", 6, "a", 1}, .data = "value", .data_bytes = 5};
    unsigned char summary[65536];
    size_t bytes = sizeof summary;
    talea_epoch_t *epoch;
    talea_queue_t *queue;
    talea_step_t step;
    talea_oid_t oid;
    OK(talea_object_new(run, "SX", &oid));
    OK(talea_queue_create(system, &queue));
    OK(talea_epoch_begin(run, &epoch));
    OK(talea_object_update(run, epoch, oid, &update, 1));
    OK(talea_epoch_summary(epoch, summary, &bytes));
    start_all(run, epoch, oid, queue);
    FAILS(talea_epoch_commit(epoch, NULL, 0, NULL, 0, &step), TALEA_IN_FLIGHT, "updates of this epoch");
    FAILS(talea_epoch_commit(epoch, summary, bytes, NULL, 0, &step), TALEA_IN_FLIGHT, "talea_queue_poll");
    FAILS(talea_epoch_summary(epoch, summary, &bytes), TALEA_IN_FLIGHT, "nothing was done");
    take(queue, UPDATES);
    CHECK(committed(run, oid) == 0);
    FAILS(talea_epoch_commit(epoch, summary, bytes, NULL, 0, &step), TALEA_ARGUMENT, "anew");
    OK(talea_epoch_commit(epoch, NULL, 0, NULL, 0, &step));
    CHECK(committed(run, oid) == UPDATES + 1);
    FAILS(talea_object_update_start(run, epoch, oid, &update, 1, queue, NULL, NULL), TALEA_ABORTED, "over");
    talea_epoch_close(epoch);

    /* An independent transaction alike. */
    OK(talea_object_new(run, "SX", &oid));
    OK(talea_tx_open(run, &epoch));
    start_all(run, epoch, oid, queue);
    FAILS(talea_tx_commit(epoch, NULL), TALEA_IN_FLIGHT, "200 updates");
    take(queue, UPDATES);
    OK(talea_tx_commit(epoch, NULL));
    CHECK(committed(run, oid) == UPDATES);
    talea_epoch_close(epoch);

    /* What is given up with its queue fails the epoch. */
    OK(talea_object_new(run, "SX", &oid));
    OK(talea_epoch_begin(run, &epoch));
    start_all(run, epoch, oid, queue);
    talea_queue_destroy(queue);
    CHECK(talea_epoch_commit(epoch, NULL, 0, NULL, 0, &step) == TALEA_ABORTED);
    CHECK(committed(run, oid) == 0);
    talea_epoch_close(epoch);
}

static void *poll_once(void *queue)
{
    static talea_event_t event;
    size_t told;
    OK(talea_queue_poll(queue, LONG_MS, &event, 1, &told));
    return told == 1 ? &event : NULL;
}

/* While one thread waits, others start operations, ask and destroy: if a poll held the queue, the servers, who stand still until the last
 * of it, would end nothing before the operations' deadlines. */
static void threads(talea_system_t *system, talea_container_t *run)
{
    talea_update_t update = update_of(0);
    talea_queue_t *queue;
    pthread_t waiting;
    size_t pending, told;
    talea_oid_t oid;
    void *event;
    OK(talea_object_new(run, "SX", &oid));
    OK(talea_object_update(run, NULL, oid, &update, 1)); /* connected */
    OK(talea_queue_create(system, &queue));
    tell_servers(SIGSTOP);
    OK(talea_object_update_start(run, NULL, oid, &update, 1, queue, NULL, &update));
    CHECK(pthread_create(&waiting, NULL, poll_once, queue) == 0);
    usleep(200 * 1000); /* it may not wait yet: then this shows less */
    OK(talea_queue_pending(queue, &pending));
    CHECK(pending == 1);
    for (int i = 1; i < 20; i++)
        OK(talea_object_update_start(run, NULL, oid, &update, 1, queue, NULL, &update));
    OK(talea_queue_pending(queue, &pending));
    CHECK(pending == 20);
    OK(talea_queue_poll(queue, 0, NULL, 0, &told));
    CHECK(told == 0);
    tell_servers(SIGCONT);
    CHECK(pthread_join(waiting, &event) == 0 && event != NULL);
    CHECK(((talea_event_t *)event)->context == &update && ((talea_event_t *)event)->code == TALEA_OK);
    take(queue, 19);

    tell_servers(SIGSTOP);
    OK(talea_object_update_start(run, NULL, oid, &update, 1, queue, NULL, &update));
    CHECK(pthread_create(&waiting, NULL, poll_once, queue) == 0);
    usleep(200 * 1000);
    talea_queue_destroy(queue);
    CHECK(pthread_join(waiting, &event) == 0 && event == NULL);
    tell_servers(SIGCONT);
}

/* Deadlines are the servers' time: what the program does between two calls is its own.  An answer that comes too late, over rings or a network, finds
 * nobody, and the buffer as the caller left it. */
static void deadlines(talea_container_t *patient)
{
    static unsigned char value[BLOCK], late[BLOCK], back[BLOCK];
    talea_update_t update = {.key = {"late", 4, "a", 1}, .data = value, .data_bytes = BLOCK};
    talea_fetch_t fetch = {.key = {"late", 4, "a", 1}, .data = back, .data_bytes = BLOCK}, slow = fetch;
    talea_container_t *run;
    talea_system_t *hasty;
    talea_event_t event;
    talea_queue_t *queue;
    talea_oid_t oid;
    size_t told;
    memset(value, 7, BLOCK);
    OK(talea_object_new(patient, "SX", &oid));
    OK(talea_object_update(patient, NULL, oid, &update, 1));
    OK(talea_connect(NULL, HASTY_MS, &hasty));
    OK(talea_container_open(hasty, "run", &run));
    OK(talea_queue_create(hasty, &queue));
    OK(talea_object_fetch(run, NULL, NULL, oid, &fetch, 1));

    /* More than may be in flight, and nobody in the library for longer than a deadline; then a call that waits behind them. */
    start_all(run, NULL, oid, queue);
    usleep(2 * HASTY_MS * 1000);
    OK(talea_object_fetch(run, NULL, NULL, oid, &fetch, 1));
    take(queue, UPDATES);

    memset(late, 0xee, BLOCK);
    slow.data = late;
    tell_servers(SIGSTOP);
    OK(talea_object_fetch_start(run, NULL, NULL, oid, &slow, 1, queue, NULL, NULL));
    OK(talea_queue_poll(queue, LONG_MS, &event, 1, &told));
    CHECK(told == 1 && event.code == TALEA_DEADLINE && strstr(event.text, "no answer") != NULL);
    tell_servers(SIGCONT);
    memset(back, 0, BLOCK);
    OK(talea_object_fetch(run, NULL, NULL, oid, &fetch, 1)); /* its answer comes after the late one */
    CHECK(memcmp(back, value, BLOCK) == 0 && fetch.value_bytes == BLOCK);
    memset(back, 0xee, BLOCK);
    CHECK(memcmp(back, late, BLOCK) == 0 && slow.found == 0 && slow.value_bytes == 0);
    talea_queue_destroy(queue);
    talea_container_close(run);
    talea_disconnect(hasty);
}

/* A punch and a commit in flight: the program goes on while servers that stand still do nothing of it. */
static void starts(talea_system_t *system, talea_container_t *run)
{
    talea_update_t updates[2] = {update_of(0), update_of(1)};
    talea_key_t key = {names[0], strlen(names[0]), NULL, 0};
    unsigned char summary[65536];
    size_t bytes = sizeof summary, told;
    talea_epoch_t *epoch;
    talea_queue_t *queue;
    talea_event_t event;
    talea_step_t step = {.step = 0};
    talea_oid_t oid;
    int mark;
    OK(talea_object_new(run, "SX", &oid));
    OK(talea_queue_create(system, &queue));
    OK(talea_object_update(run, NULL, oid, &updates[0], 1));
    OK(talea_object_update(run, NULL, oid, &updates[1], 1));
    OK(talea_epoch_begin(run, &epoch));
    OK(talea_epoch_summary(epoch, summary, &bytes));
    tell_servers(SIGSTOP);
    OK(talea_object_punch_start(run, epoch, oid, &key, NULL, queue, NULL, &mark));
    FAILS(talea_epoch_commit_start(epoch, NULL, 0, NULL, 0, &step, queue, NULL, NULL), TALEA_IN_FLIGHT, "talea_queue_poll");
    OK(talea_queue_pending(queue, &told));
    CHECK(told == 1);
    tell_servers(SIGCONT);
    OK(talea_queue_poll(queue, LONG_MS, &event, 1, &told));
    CHECK(told == 1 && event.context == &mark && event.code == TALEA_OK);
    CHECK(committed(run, oid) == 2);
    FAILS(talea_epoch_commit_start(epoch, summary, bytes, NULL, 0, &step, queue, NULL, NULL), TALEA_ARGUMENT, "anew");
    FAILS(talea_epoch_commit_start(epoch, NULL, 0, NULL, 0, (talea_step_t *)((char *)&step + 1), queue, NULL, NULL), TALEA_ARGUMENT,
          "misaligned");
    FAILS(talea_epoch_commit_start(epoch, NULL, 0, NULL, 0, &step, NULL, NULL, NULL), TALEA_ARGUMENT, "null pointer");

    tell_servers(SIGSTOP);
    OK(talea_epoch_commit_start(epoch, NULL, 0, "words", 5, &step, queue, NULL, &mark));
    FAILS(talea_object_punch_start(run, epoch, oid, &key, NULL, queue, NULL, NULL), TALEA_ABORTED, "over");
    talea_epoch_close(epoch); /* the commit goes on */
    OK(talea_queue_poll(queue, 0, &event, 1, &told));
    CHECK(told == 0 && step.step == 0);
    tell_servers(SIGCONT);
    OK(talea_queue_poll(queue, LONG_MS, &event, 1, &told));
    CHECK(told == 1 && event.context == &mark && event.code == TALEA_OK && step.step > 0 && step.latest_step == step.step);
    CHECK(committed(run, oid) == 1);

    /* One that fails says so with its end; outside of an epoch a punch is on its own. */
    OK(talea_epoch_begin(run, &epoch));
    OK(talea_object_punch_start(run, NULL, oid, NULL, NULL, queue, NULL, NULL));
    take(queue, 1);
    CHECK(committed(run, oid) == 0);
    OK(talea_object_update(run, epoch, oid, &updates[0], 1));
    OK(talea_epoch_abort(epoch, "to see"));
    FAILS(talea_epoch_commit_start(epoch, NULL, 0, NULL, 0, NULL, queue, NULL, NULL), TALEA_ABORTED, "over");
    talea_epoch_close(epoch);

    /* Given up with its queue: nothing touches the step's place afterwards, whatever became of the commit. */
    OK(talea_epoch_begin(run, &epoch));
    OK(talea_object_update(run, epoch, oid, &updates[0], 1));
    tell_servers(SIGSTOP);
    step.step = 77;
    OK(talea_epoch_commit_start(epoch, NULL, 0, NULL, 0, &step, queue, NULL, NULL));
    talea_queue_destroy(queue);
    tell_servers(SIGCONT);
    talea_epoch_close(epoch);
    OK(talea_object_update(run, NULL, oid, &updates[1], 1)); /* an answer that comes after it */
    CHECK(step.step == 77);
}

/* Functions that end their queue, or poll it. */
static struct {
    talea_queue_t *queue;
    volatile int runs, is_gone, after, nested;
} calls;

static void destroys(void *context, int code)
{
    (void)context, (void)code;
    calls.runs++;
    calls.after += calls.is_gone;
    if (!calls.is_gone)
        talea_queue_destroy(calls.queue);
    calls.is_gone = 1;
}

static void lasts(void *context, int code)
{
    (void)context, (void)code;
    calls.after += calls.is_gone;
    calls.runs++;
    usleep(20 * 1000);
    calls.after += calls.is_gone;
}

static void *destroy(void *unused)
{
    (void)unused;
    while (calls.runs == 0)
        usleep(100);
    talea_queue_destroy(calls.queue);
    calls.is_gone = 1;
    return NULL;
}

static void polls(void *context, int code)
{
    talea_event_t event;
    size_t told;
    char *others[64];
    CHECK(code == TALEA_OK);
    (void)context;
    OK(talea_queue_poll(calls.queue, 0, &event, 1, &told));
    calls.nested += (int)told;
    for (int i = 0; i < 64; i++) /* what was freed is used again */
        CHECK((others[i] = malloc(200)) != NULL && memset(others[i], 'Z', 200) != NULL);
    for (int i = 0; i < 64; i++)
        free(others[i]);
}

static void functions(talea_system_t *system, talea_container_t *run)
{
    talea_update_t update = update_of(0), bad = {.key = {"k", 1, "", 0}, .data = "value", .data_bytes = 5};
    talea_event_t events[4];
    talea_oid_t oid;
    pthread_t other;
    size_t told;
    OK(talea_object_new(run, "SX", &oid));
    for (int is_other = 0; is_other < 2; is_other++) {
        memset((void *)&calls, 0, sizeof calls);
        OK(talea_queue_create(system, &calls.queue));
        for (int i = 0; i < 32; i++)
            OK(talea_object_update_start(run, NULL, oid, &update, 1, calls.queue, is_other ? lasts : destroys, NULL));
        OK(talea_object_update(run, NULL, oid, &update, 1)); /* it has carried the others on: they have ended */
        if (is_other)
            CHECK(pthread_create(&other, NULL, destroy, NULL) == 0);
        OK(talea_queue_poll(calls.queue, LONG_MS, events, 4, &told));
        CHECK(told == 0);
        if (is_other)
            CHECK(pthread_join(other, NULL) == 0);
        CHECK(calls.runs >= 1 && calls.runs < 32 && calls.after == 0);
        FAILS(talea_queue_poll(calls.queue, 0, events, 4, &told), TALEA_ARGUMENT, "no open queue");
    }
    /* A function that polls takes nothing from the poll that called it. */
    memset((void *)&calls, 0, sizeof calls);
    OK(talea_queue_create(system, &calls.queue));
    OK(talea_object_update_start(run, NULL, oid, &bad, 1, calls.queue, NULL, NULL));
    OK(talea_object_update_start(run, NULL, oid, &bad, 1, calls.queue, NULL, NULL));
    OK(talea_object_update_start(run, NULL, oid, &update, 1, calls.queue, polls, NULL));
    OK(talea_object_update(run, NULL, oid, &update, 1));
    OK(talea_queue_poll(calls.queue, LONG_MS, events, 4, &told));
    CHECK(told + (size_t)calls.nested == 2 && told > 0 && strstr(events[0].text, "must not be empty") != NULL);
    talea_queue_destroy(calls.queue);
}

static volatile int is_waiting;

static void *wait_long(void *subscription)
{
    talea_step_t step;
    is_waiting = 1;
    CHECK(talea_wait(subscription, 2500, &step) == TALEA_NOT_READY);
    is_waiting = 0;
    return NULL;
}

/* Threads that share a subscription go by their own deadlines. */
static void waits(talea_container_t *run)
{
    talea_subscription_t *subscription;
    talea_step_t step;
    pthread_t other;
    OK(talea_subscribe(run, 0, &subscription));
    while (talea_wait(subscription, 0, &step) == TALEA_OK)
        continue;
    CHECK(pthread_create(&other, NULL, wait_long, subscription) == 0);
    usleep(200 * 1000);
    CHECK(talea_wait(subscription, 0, &step) == TALEA_NOT_READY);
    CHECK(is_waiting);
    CHECK(pthread_join(other, NULL) == 0);
    talea_unsubscribe(subscription);
}

int main(int count, char **arguments)
{
    talea_system_t *system;
    talea_container_t *run;
    for (int i = 1; i < count && server_count < 16; i++)
        servers[server_count++] = (pid_t)atoi(arguments[i]);
    CHECK(server_count > 0 && atexit(wake_servers) == 0);
    OK(talea_connect(NULL, 20000, &system));
    OK(talea_container_create(system, "run", 1, &run));
    commits(system, run);
    starts(system, run);
    functions(system, run);
    waits(run);
    threads(system, run);
    deadlines(run);
    OK(talea_produce_end(run));
    talea_container_close(run);
    talea_disconnect(system);
    puts("queue: all of it holds");
    return 0;
}
