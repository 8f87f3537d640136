/*
 * The C API as a C program uses and misuses it: values, arrays, epochs, snapshots, steps, operations in flight; bad pointers, sizes and handles, each told
 * and none followed; a forked child that can do nothing and harms nothing.  Runs under `talea run`.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <talea.h>
#include <unistd.h>

static void check(int line, int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "capi:%d: %s does not hold; last error: %s\n", line, what, talea_error());
    exit(1);
}
#define CHECK(condition) check(__LINE__, (condition), #condition)
#define OK(call) CHECK((call) == TALEA_OK)
/* The call returns this code, and the text has this word. */
#define FAILS(call, code, word) CHECK((call) == (code) && strstr(talea_error(), (word)) != NULL)

static talea_key_t key(const char *dkey, const char *akey)
{
    return (talea_key_t){dkey, strlen(dkey), akey, strlen(akey)};
}

static talea_update_t single(const char *dkey, const char *akey, const char *value)
{
    return (talea_update_t){.key = key(dkey, akey), .data = value, .data_bytes = strlen(value)};
}

/* The single value of a key as a string; "" if there is none. */
static const char *value_of(talea_container_t *run, talea_epoch_t *epoch, talea_snapshot_t *at, talea_oid_t oid, const char *dkey, const char *akey)
{
    static char value[256];
    memset(value, 0, sizeof value);
    talea_fetch_t fetch = {.key = key(dkey, akey), .data = value, .data_bytes = sizeof value - 1};
    OK(talea_object_fetch(run, epoch, at, oid, &fetch, 1));
    CHECK((fetch.found != 0) == (fetch.value_bytes != 0));
    return value;
}

static int count(void *context, const void *name, size_t name_bytes)
{
    CHECK(name != NULL && name_bytes > 0);
    ++*(int *)context;
    return 0;
}

static void values_and_arrays(talea_container_t *run, talea_oid_t oid)
{
    uint32_t records[8] = {1, 2, 3, 4, 5, 6, 7, 8}, back[8];
    talea_extent_t extents[2] = {{0, 4}, {100, 4}};
    talea_update_t array = {.key = key("d", "array"), .record_bytes = 4, .extents = extents, .extent_count = 2, .data = records, .data_bytes = sizeof records};
    talea_update_t absent = single("d", "a", "other");
    talea_update_t values[2] = {single("d", "a", "one"), single("d", "b", "two")};
    int names = 0;
    OK(talea_object_update(run, NULL, oid, values, 2));
    OK(talea_object_update(run, NULL, oid, &array, 1));
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "d", "b"), "two") == 0);
    talea_fetch_t fetch = {.key = key("d", "array"), .record_bytes = 4, .extents = &(talea_extent_t){98, 8}, .extent_count = 1, .data = back, .data_bytes = sizeof back};
    OK(talea_object_fetch(run, NULL, NULL, oid, &fetch, 1));
    CHECK(back[0] == 0 && back[1] == 0 && back[2] == 5 && back[5] == 8 && back[6] == 0);
    fetch.record_bytes = 8, fetch.extents = &(talea_extent_t){1000, 4}; /* a hole, of an array of other records */
    FAILS(talea_object_fetch(run, NULL, NULL, oid, &fetch, 1), TALEA_ARGUMENT, "an array with records of 4 bytes");
    absent.condition = TALEA_IF_ABSENT;
    CHECK(talea_object_update(run, NULL, oid, &absent, 1) == TALEA_CONFLICT || talea_object_update(run, NULL, oid, &absent, 1) == TALEA_EXISTS);
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "d", "a"), "one") == 0);
    OK(talea_object_list(run, NULL, NULL, oid, "d", 1, count, &names));
    CHECK(names == 3);
    OK(talea_object_punch(run, NULL, oid, &(talea_key_t){"d", 1, "b", 1}, NULL));
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "d", "b"), "") == 0);
}

/* Data in pieces that end within extents and records. */
static void pieces(talea_system_t *system, talea_container_t *run, talea_oid_t oid)
{
    static unsigned char data[3 << 20], back[3 << 20];
    talea_extent_t extents[2] = {{0, 1 << 20}, {2 << 20, 1 << 19}}; /* of records of two bytes */
    talea_iovec_t from[40], to[7];
    talea_queue_t *queue;
    talea_event_t event;
    size_t told, at = 0;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    for (int i = 0; i < 40; i++) {
        size_t bytes = i == 39 ? sizeof data - at : i % 5 == 0 ? 0 : i == 17 ? 2000001 : 777;
        from[i] = (talea_iovec_t){data + at, bytes};
        at += bytes;
    }
    for (int i = 0; i < 7; i++)
        to[i] = (talea_iovec_t){back + i * 400003, i == 6 ? sizeof back - 6 * 400003 : 400003};
    talea_update_iov_t update = {.key = key("d", "pieces"), .record_bytes = 2, .extents = extents, .extent_count = 2, .iov = from, .iov_count = 40};
    talea_fetch_iov_t fetch = {.key = key("d", "pieces"), .record_bytes = 2, .extents = extents, .extent_count = 2, .iov = to, .iov_count = 7};
    talea_epoch_t *epoch;
    OK(talea_epoch_begin(run, &epoch));
    OK(talea_object_update_iov(run, epoch, oid, &update, 1));
    OK(talea_object_fetch_iov(run, epoch, NULL, oid, &fetch, 1));
    CHECK(fetch.found == 1 && memcmp(data, back, sizeof data) == 0);
    memset(data, 9, 777);
    memset(back, 0, sizeof back);
    OK(talea_queue_create(system, &queue));
    OK(talea_object_update_iov_start(run, epoch, oid, &update, 1, queue, NULL, NULL));
    OK(talea_queue_poll(queue, 20000, &event, 1, &told));
    CHECK(told == 1 && event.code == TALEA_OK);
    OK(talea_object_fetch_iov_start(run, epoch, NULL, oid, &fetch, 1, queue, NULL, NULL));
    OK(talea_queue_poll(queue, 20000, &event, 1, &told));
    CHECK(told == 1 && event.code == TALEA_OK && memcmp(data, back, sizeof data) == 0);
    talea_queue_destroy(queue);
    OK(talea_epoch_abort(epoch, NULL));
    talea_epoch_close(epoch);
    /* A value, whose places are too few for it. */
    talea_update_iov_t value = {.key = key("d", "value"), .iov = (talea_iovec_t[]){{"one ", 4}, {"", 0}, {"two", 3}}, .iov_count = 3};
    talea_fetch_iov_t part = {.key = key("d", "value"), .iov = (talea_iovec_t[]){{back, 2}, {back + 10, 3}}, .iov_count = 2};
    OK(talea_object_update_iov(run, NULL, oid, &value, 1));
    OK(talea_object_fetch_iov(run, NULL, NULL, oid, &part, 1));
    CHECK(part.value_bytes == 7 && memcmp(back, "on", 2) == 0 && memcmp(back + 10, "e t", 3) == 0);
    OK(talea_object_punch(run, NULL, oid, &(talea_key_t){"d", 1, "value", 5}, NULL));
    update.iov_count = 39;
    FAILS(talea_object_update_iov(run, NULL, oid, &update, 1), TALEA_ARGUMENT, "size");
    update.iov = NULL;
    FAILS(talea_object_update_iov(run, NULL, oid, &update, 1), TALEA_ARGUMENT, "null pointer");
    fetch.iov = (talea_iovec_t[]){{NULL, 5}}, fetch.iov_count = 1;
    FAILS(talea_object_fetch_iov(run, NULL, NULL, oid, &fetch, 1), TALEA_ARGUMENT, "null pointer");
}

static void epochs_and_steps(talea_system_t *system, talea_container_t *run, talea_oid_t oid)
{
    talea_update_t update = single("e", "a", "first");
    talea_subscription_t *follower;
    talea_epoch_t *epoch, *joined;
    talea_snapshot_t *snapshot;
    talea_container_t *other;
    talea_step_t step, told;
    unsigned char blob[1024];
    size_t bytes = sizeof blob, little = 1;
    OK(talea_subscribe(run, 0, &follower));
    CHECK(talea_wait(follower, 0, &told) == TALEA_NOT_READY);
    OK(talea_epoch_begin(run, &epoch));
    FAILS(talea_epoch_blob(epoch, blob, &little), TALEA_TOO_LONG, "too few");
    OK(talea_epoch_blob(epoch, blob, &bytes));
    OK(talea_container_open(system, "run", &other));
    OK(talea_epoch_join(other, blob, bytes, &joined));
    OK(talea_object_update(other, joined, oid, &update, 1));
    CHECK(strcmp(value_of(run, epoch, NULL, oid, "e", "a"), "first") == 0);
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "e", "a"), "") == 0);
    unsigned char mine[65536], theirs[65536];
    size_t room = sizeof mine, room_too = sizeof theirs;
    OK(talea_epoch_summary(epoch, mine, &room));
    OK(talea_epoch_summary(joined, theirs, &room_too));
    CHECK(room == room_too);
    OK(talea_summary_merge(mine, theirs, room));
    OK(talea_epoch_commit(epoch, mine, room, "note", 4, &step));
    CHECK(step.step == 1);
    talea_epoch_close(joined);
    talea_epoch_close(epoch);
    FAILS(talea_epoch_abort(epoch, NULL), TALEA_ARGUMENT, "closed");
    OK(talea_wait(follower, 10000, &told));
    CHECK(told.step == 1 && told.stamp == step.stamp);
    OK(talea_snapshot_open(run, 1, &snapshot));
    update = single("e", "a", "second");
    OK(talea_object_update(run, NULL, oid, &update, 1));
    CHECK(strcmp(value_of(run, NULL, snapshot, oid, "e", "a"), "first") == 0);
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "e", "a"), "second") == 0);
    OK(talea_epoch_begin(run, &epoch));
    FAILS(talea_object_fetch(run, epoch, snapshot, oid, NULL, 0), TALEA_ARGUMENT, "one of them");
    OK(talea_epoch_abort(epoch, "the test says so"));
    update = single("e", "a", "never");
    CHECK(talea_object_update(run, epoch, oid, &update, 1) == TALEA_ABORTED);
    talea_epoch_close(epoch);
    talea_snapshot_close(snapshot);
    talea_unsubscribe(follower);
    talea_container_close(other);
}

enum { FLYING = 200, BLOCK = 4096 };
static unsigned char blocks[FLYING][BLOCK], returned[FLYING][BLOCK];

struct call {
    int ended, code;
    talea_queue_t *queue;
    talea_container_t *run;
    talea_oid_t oid;
    talea_fetch_t fetch;
};

static void ended(void *context, int code)
{
    struct call *call = context;
    call->ended++;
    call->code = code;
}

/* The function that is told of an update's end starts the fetch of what was written. */
static void fetch_it(void *context, int code)
{
    struct call *call = context;
    CHECK(code == TALEA_OK);
    OK(talea_object_fetch_start(call->run, NULL, NULL, call->oid, &call->fetch, 1, call->queue, ended, call));
}

/* Many operations in flight from one thread, told of by events and by functions. */
static void in_flight(talea_system_t *system, talea_container_t *run, talea_oid_t oid)
{
    talea_queue_t *queue, *other;
    talea_event_t events[32];
    talea_extent_t whole = {0, BLOCK};
    talea_epoch_t *epoch;
    talea_step_t step;
    struct call call = {.run = run, .oid = oid};
    size_t told, pending, all = 0;
    char dkeys[FLYING][8], value[16] = "";
    OK(talea_queue_create(system, &queue));
    OK(talea_queue_poll(queue, 1000, events, 32, &told)); /* nothing is in flight: it does not wait */
    CHECK(told == 0);
    OK(talea_epoch_begin(run, &epoch));
    for (int i = 0; i < FLYING; i++) {
        snprintf(dkeys[i], sizeof dkeys[i], "q%d", i);
        memset(blocks[i], i, BLOCK);
        talea_update_t update = {.key = key(dkeys[i], "block"), .record_bytes = 1, .extents = &whole, .extent_count = 1, .data = blocks[i], .data_bytes = BLOCK};
        OK(talea_object_update_start(run, epoch, oid, &update, 1, queue, NULL, blocks[i]));
    }
    OK(talea_queue_pending(queue, &pending));
    CHECK(pending == FLYING);
    for (int seen[FLYING] = {0}; all < FLYING; all += told) {
        OK(talea_queue_poll(queue, 20000, events, 32, &told));
        CHECK(told >= 1 && told <= 32);
        for (size_t i = 0; i < told; i++) {
            size_t which = (size_t)((unsigned char(*)[BLOCK])events[i].context - blocks);
            CHECK(which < FLYING && seen[which]++ == 0 && events[i].code == TALEA_OK && events[i].text == NULL);
        }
    }
    OK(talea_epoch_commit(epoch, NULL, 0, NULL, 0, &step));
    talea_epoch_close(epoch);
    static talea_fetch_t fetches[FLYING];
    for (int i = 0; i < FLYING; i++) {
        fetches[i] = (talea_fetch_t){.key = key(dkeys[i], "block"), .record_bytes = 1, .extents = &whole, .extent_count = 1, .data = returned[i], .data_bytes = BLOCK};
        OK(talea_object_fetch_start(run, NULL, NULL, oid, &fetches[i], 1, queue, NULL, NULL));
    }
    for (all = 0; all < FLYING; all += told)
        OK(talea_queue_poll(queue, 20000, events, 32, &told));
    CHECK(memcmp(blocks, returned, sizeof blocks) == 0 && fetches[7].found == 1);

    /* By functions: one that starts the next operation, and one that is told of a failure with its text. */
    talea_update_t update = single("q", "a", "called"), absent = update;
    call.queue = queue;
    call.fetch = (talea_fetch_t){.key = key("q", "a"), .data = value, .data_bytes = sizeof value};
    OK(talea_object_update_start(run, NULL, oid, &update, 1, queue, fetch_it, &call));
    while (call.ended == 0)
        OK(talea_queue_poll(queue, 20000, NULL, 0, &told));
    CHECK(call.code == TALEA_OK && call.fetch.value_bytes == 6 && memcmp(value, "called", 6) == 0);
    absent.condition = TALEA_IF_ABSENT;
    OK(talea_object_update_start(run, NULL, oid, &absent, 1, queue, NULL, &call));
    OK(talea_queue_poll(queue, 20000, events, 32, &told));
    CHECK(told == 1 && events[0].context == &call && events[0].code != TALEA_OK && strlen(events[0].text) > 0);
    OK(talea_object_update_start(run, NULL, oid, &absent, 1, queue, ended, &call));
    OK(talea_queue_poll(queue, 20000, NULL, 0, &told));
    CHECK(call.ended == 2 && call.code != TALEA_OK && told == 0 && strlen(talea_error()) > 0);

    /* Misuse is told at once, and nothing is told later. */
    FAILS(talea_object_update_start(run, NULL, oid, NULL, 1, queue, NULL, NULL), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_object_update_start(run, NULL, oid, &update, 1, NULL, NULL, NULL), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_object_update_start(run, NULL, oid, &update, 1, (talea_queue_t *)run, NULL, NULL), TALEA_ARGUMENT, "no open queue");
    FAILS(talea_queue_poll(queue, -1, events, 32, &told), TALEA_ARGUMENT, "milliseconds");
    FAILS(talea_queue_poll(queue, 0, NULL, 32, &told), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_queue_poll(queue, 0, events, 32, NULL), TALEA_ARGUMENT, "null");
    FAILS(talea_queue_create(system, NULL), TALEA_ARGUMENT, "null");
    OK(talea_queue_pending(queue, &pending));
    CHECK(pending == 0);

    /* A queue that ends with operations in flight touches their memory no more. */
    OK(talea_queue_create(system, &other));
    for (int i = 0; i < 50; i++)
        OK(talea_object_fetch_start(run, NULL, NULL, oid, &fetches[i], 1, other, ended, &call));
    talea_queue_destroy(other);
    memset(returned, 0xee, sizeof returned);
    for (int i = 50; i < 100; i++)
        OK(talea_object_fetch_start(run, NULL, NULL, oid, &fetches[i], 1, queue, NULL, NULL));
    for (all = 0; all < 50; all += told)
        OK(talea_queue_poll(queue, 20000, events, 32, &told));
    CHECK(call.ended == 2 && returned[0][0] == 0xee && returned[49][BLOCK - 1] == 0xee && returned[99][0] == 99);
    FAILS(talea_queue_poll(other, 0, events, 32, &told), TALEA_ARGUMENT, "closed");
    talea_queue_destroy(queue);
    talea_queue_destroy(queue);
    talea_queue_destroy(NULL);
}

static int note(void *context, const talea_difference_t *difference)
{
    uint32_t *seen = context;
    CHECK(difference->key.dkey_bytes > 0 && difference->key.akey_bytes == 1 && difference->record_bytes == 0);
    seen[difference->how]++;
    return 0;
}

/* Transactions that come too late, what differs between steps, and going back. */
static void transactions_and_rollback(talea_container_t *run, talea_oid_t oid)
{
    talea_update_t update = single("t", "a", "one");
    talea_epoch_t *one, *two, *epoch;
    talea_snapshot_t *before, *after;
    talea_step_t step, back;
    uint32_t seen[4] = {0};
    uint64_t stamp = 0;
    OK(talea_tx_open(run, &one));
    OK(talea_tx_open(run, &two));
    CHECK(strcmp(value_of(run, one, NULL, oid, "t", "a"), "") == 0);
    CHECK(strcmp(value_of(run, two, NULL, oid, "t", "a"), "") == 0);
    OK(talea_object_update(run, one, oid, &update, 1));
    update = single("t", "a", "two");
    OK(talea_object_update(run, two, oid, &update, 1));
    CHECK(strcmp(value_of(run, two, NULL, oid, "t", "a"), "two") == 0);
    FAILS(talea_epoch_commit(one, NULL, 0, NULL, 0, NULL), TALEA_ARGUMENT, "talea_tx_commit");
    OK(talea_tx_commit(one, &stamp));
    CHECK(stamp != 0);
    FAILS(talea_tx_commit(two, NULL), TALEA_CONFLICT, "begin it anew");
    FAILS(talea_tx_commit(two, NULL), TALEA_ABORTED, "over");
    talea_epoch_close(one);
    talea_epoch_close(two);
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "t", "a"), "one") == 0);
    OK(talea_epoch_begin(run, &epoch));
    FAILS(talea_tx_commit(epoch, NULL), TALEA_ARGUMENT, "collective");
    update = single("t", "a", "three");
    OK(talea_object_update(run, epoch, oid, &update, 1));
    OK(talea_snapshot_name(run, "before", 0));
    OK(talea_epoch_commit(epoch, NULL, 0, NULL, 0, &step));
    talea_epoch_close(epoch);
    OK(talea_snapshot_open_named(run, "before", &before));
    OK(talea_snapshot_open(run, step.step, &after));
    OK(talea_snapshot_diff(run, before, after, note, seen));
    CHECK(seen[TALEA_CHANGED] == 1 && seen[TALEA_ADDED] == 0 && seen[TALEA_REMOVED] == 0);
    FAILS(talea_snapshot_diff(run, before, after, NULL, NULL), TALEA_ARGUMENT, "no function");
    FAILS(talea_rollback(run, 0, NULL, NULL, 0, NULL), TALEA_ARGUMENT, "one of them");
    FAILS(talea_rollback(run, 0, "never", NULL, 0, NULL), TALEA_NOT_FOUND, "never");
    OK(talea_rollback(run, 0, "before", "back", 4, &back));
    CHECK(back.step == step.step + 1);
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "t", "a"), "one") == 0);
    CHECK(strcmp(value_of(run, NULL, after, oid, "t", "a"), "three") == 0);
    talea_snapshot_close(before);
    talea_snapshot_close(after);
    OK(talea_snapshot_destroy(run, "before"));
}

/* What an update at once takes, and what an akey holds: each said in words. */
static void limits(talea_container_t *run, talea_oid_t oid)
{
    enum { MANY = 5000, LARGE = (1 << 20) + 1 };
    talea_extent_t *apart = calloc(MANY, sizeof *apart), whole = {0, LARGE}, first = {0, 1};
    char *data = calloc(LARGE, 1);
    talea_update_t value = single("limits", "value", "value"), bytes = {.key = key("limits", "bytes"), .record_bytes = 1, .data = data};
    for (int i = 0; i < MANY; i++)
        apart[i] = (talea_extent_t){(uint64_t)(2 * i), 1};
    bytes.extents = apart, bytes.extent_count = bytes.data_bytes = MANY;
    FAILS(talea_object_update(run, NULL, oid, &bytes, 1), TALEA_TOO_LONG, "16 an extent");
    CHECK(strstr(talea_error(), "extents: 5000") != NULL);
    bytes.extents = &whole, bytes.extent_count = 1, bytes.data_bytes = LARGE;
    FAILS(talea_object_update(run, NULL, oid, &bytes, 1), TALEA_TOO_LONG, "1048576 bytes of data");
    value.data = data, value.data_bytes = LARGE;
    FAILS(talea_object_update(run, NULL, oid, &value, 1), TALEA_TOO_LONG, "use an array");
    value.data_bytes = 5;
    OK(talea_object_update(run, NULL, oid, &value, 1));
    bytes.key = value.key, bytes.extents = &first, bytes.data_bytes = 1;
    FAILS(talea_object_update(run, NULL, oid, &bytes, 1), TALEA_ARGUMENT, "holds a single value and was used as an array of single bytes");
    OK(talea_object_punch(run, NULL, oid, &(talea_key_t){"limits", 6, NULL, 0}, NULL));
    free(apart);
    free(data);
}

/* Everything that a C caller can get wrong in an argument: an error code, and no crash. */
static void misuse(talea_system_t *system, talea_container_t *run, talea_oid_t oid)
{
    static char longest[4097];
    talea_update_t update = single("m", "a", "value"), bad;
    talea_fetch_t fetch = {.key = key("m", "a")};
    talea_container_t *container = NULL, *freed;
    talea_container_info_t info;
    talea_epoch_t *epoch;
    memset(longest, 'k', sizeof longest);
    OK(talea_object_update(run, NULL, oid, &update, 1));
    FAILS(talea_container_open(system, NULL, &container), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_container_open(system, "run", NULL), TALEA_ARGUMENT, "null");
    FAILS(talea_container_open(NULL, "run", &container), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_container_open((talea_system_t *)0xdeadbeef0, "run", &container), TALEA_ARGUMENT, "no open");
    FAILS(talea_container_open((talea_system_t *)run, "run", &container), TALEA_ARGUMENT, "no open");
    FAILS(talea_container_open(system, "nowhere", &container), TALEA_NO_CONTAINER, "talea ls");
    FAILS(talea_container_open(system, "\xff\xfe", &container), TALEA_ARGUMENT, "UTF-8");
    CHECK(container == NULL);
    OK(talea_container_open(system, "run", &freed));
    talea_container_close(freed);
    talea_container_close(freed); /* told to nobody, and harmless */
    FAILS(talea_container_query(freed, &info), TALEA_ARGUMENT, "closed");
    FAILS(talea_container_query(run, NULL), TALEA_ARGUMENT, "null");
    FAILS(talea_container_query(run, (talea_container_info_t *)((char *)&info + 1)), TALEA_ARGUMENT, "misaligned");
    FAILS(talea_object_update(run, NULL, oid, NULL, 1), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_object_update(run, NULL, oid, &update, SIZE_MAX), TALEA_ARGUMENT, "impossibly large");
    bad = update, bad.data = NULL;
    FAILS(talea_object_update(run, NULL, oid, &bad, 1), TALEA_ARGUMENT, "null pointer");
    bad = update, bad.condition = 77;
    FAILS(talea_object_update(run, NULL, oid, &bad, 1), TALEA_ARGUMENT, "77");
    bad = update, bad.key.dkey = longest, bad.key.dkey_bytes = sizeof longest;
    FAILS(talea_object_update(run, NULL, oid, &bad, 1), TALEA_TOO_LONG, "4096");
    bad = update, bad.key.dkey_bytes = 0;
    FAILS(talea_object_update(run, NULL, oid, &bad, 1), TALEA_ARGUMENT, "");
    bad = update, bad.record_bytes = 1, bad.extents = &(talea_extent_t){UINT64_MAX, 5}, bad.extent_count = 1;
    FAILS(talea_object_update(run, NULL, oid, &bad, 1), TALEA_ARGUMENT, "extent");
    bad = update, bad.record_bytes = 1, bad.extents = NULL, bad.extent_count = 3;
    FAILS(talea_object_update(run, NULL, oid, &bad, 1), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_object_update(run, (talea_epoch_t *)run, oid, &update, 1), TALEA_ARGUMENT, "no open epoch");
    fetch.data = NULL, fetch.data_bytes = 10;
    FAILS(talea_object_fetch(run, NULL, NULL, oid, &fetch, 1), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_object_list(run, NULL, NULL, oid, NULL, 0, NULL, NULL), TALEA_ARGUMENT, "no function");
    FAILS(talea_object_new(run, "S0", &oid), TALEA_ARGUMENT, "S0");
    FAILS(talea_object_new(run, "RP_2", &oid), TALEA_UNSUPPORTED, "RP_2G1");
    FAILS(talea_object_id("EC_4P2GX", 0, 1, &oid), TALEA_UNSUPPORTED, "EC_4P2GX");
    /* An id of such a class that was not made here: an object of two replicas. */
    FAILS(talea_object_update(run, NULL, (talea_oid_t){UINT64_C(0x2080000100000000), 1}, &update, 1), TALEA_UNSUPPORTED, "RP_2G1");
    FAILS(talea_epoch_join(run, longest, sizeof longest, &epoch), TALEA_OTHER, "");
    FAILS(talea_epoch_join(run, NULL, 10, &epoch), TALEA_ARGUMENT, "null pointer");
    FAILS(talea_connect("no-such-system", 1000, &system), TALEA_NO_SYSTEM, "talea");
    FAILS(talea_connect(NULL, 1000, NULL), TALEA_ARGUMENT, "null");
    FAILS(talea_connect(NULL, 0, &system), TALEA_ARGUMENT, "1 or more");
    FAILS(talea_connect(NULL, -5, &system), TALEA_ARGUMENT, "1 or more");
    limits(run, oid);
    talea_epoch_close(NULL);
    talea_snapshot_close(NULL);
    talea_unsubscribe(NULL);
    talea_disconnect(NULL);
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "m", "a"), "value") == 0);
}

/* The child's copies are dead; its end, orderly or not, changes nothing in the parent. */
static void forked(talea_container_t *run, talea_oid_t oid)
{
    talea_update_t update = single("f", "a", "by the parent");
    talea_epoch_t *epoch;
    talea_step_t step;
    OK(talea_epoch_begin(run, &epoch));
    OK(talea_object_update(run, epoch, oid, &update, 1));
    for (int quick = 0; quick < 2; quick++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            talea_update_t mine = single("f", "a", "by the child");
            talea_epoch_t *other;
            FAILS(talea_object_update(run, epoch, oid, &mine, 1), TALEA_UNSUPPORTED, "forked");
            FAILS(talea_epoch_begin(run, &other), TALEA_UNSUPPORTED, "forked");
            FAILS(talea_epoch_commit(epoch, NULL, 0, NULL, 0, NULL), TALEA_UNSUPPORTED, "forked");
            talea_epoch_close(epoch);
            talea_container_close(run);
            if (quick)
                _exit(0);
            exit(0);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    OK(talea_epoch_commit(epoch, NULL, 0, NULL, 0, &step));
    talea_epoch_close(epoch);
    CHECK(strcmp(value_of(run, NULL, NULL, oid, "f", "a"), "by the parent") == 0);
}

int main(void)
{
    talea_system_t *system;
    talea_container_t *run;
    talea_oid_t oid, again;
    OK(talea_connect(NULL, 20000, &system));
    OK(talea_container_create(system, "run", 1, &run));
    FAILS(talea_container_create(system, "run", 0, &run), TALEA_EXISTS, "run");
    FAILS(talea_container_create_keeping(system, "bounded", 0, 2, 7, &run), TALEA_ARGUMENT, "TALEA_LAGGING_KEEP");
    OK(talea_container_create_keeping(system, "bounded", 0, 2, TALEA_LAGGING_DROP, &run));
    talea_container_close(run);
    OK(talea_container_destroy(system, "bounded"));
    OK(talea_container_open(system, "run", &run));
    OK(talea_object_new(run, "SX", &oid));
    OK(talea_object_new(run, "SX", &again));
    CHECK(memcmp(&oid, &again, sizeof oid) != 0 && strlen(talea_version()) > 0);
    values_and_arrays(run, oid);
    pieces(system, run, oid);
    epochs_and_steps(system, run, oid);
    in_flight(system, run, oid);
    transactions_and_rollback(run, oid);
    misuse(system, run, oid);
    forked(run, oid);
    OK(talea_produce_end(run));
    talea_container_close(run);
    talea_disconnect(system);
    puts("capi: all of it holds");
    return 0;
}
