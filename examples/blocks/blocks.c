/*
 * The smallest writer with many operations in flight: one thread writes a step of small blocks, keeps some of them in flight, commits, and reads them
 * back the same way.
 *
 *   blocks CONTAINER             under `talea run -- ...`
 *
 * Exit status: 0 all is well, 1 an error, 2 wrong usage.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <talea.h>

enum { BLOCKS = 1000, BLOCK = 4096, IN_FLIGHT = 64, MINUTE_MS = 60000 };

static unsigned char written[BLOCKS][BLOCK], read_back[BLOCKS][BLOCK];

static void must(int code, const char *what)
{
    if (code == TALEA_OK)
        return;
    fprintf(stderr, "blocks: %s: %s\n", what, talea_error());
    exit(1);
}

/* Takes the ends of operations until no more than `left` are in flight. */
static void wait_until(talea_queue_t *queue, size_t left)
{
    talea_event_t events[IN_FLIGHT];
    size_t told, pending;
    for (;;) {
        must(talea_queue_pending(queue, &pending), "asking what is in flight");
        if (pending <= left)
            return;
        must(talea_queue_poll(queue, MINUTE_MS, events, IN_FLIGHT, &told), "waiting");
        for (size_t i = 0; i < told; i++) {
            if (events[i].code == TALEA_OK)
                continue;
            fprintf(stderr, "blocks: block %d: %s\n", (int)(size_t)events[i].context, events[i].text);
            exit(1);
        }
    }
}

/* The key of a block: each has a dkey of its own, so that they lie on all targets. */
static talea_key_t key_of(const int *number)
{
    return (talea_key_t){number, sizeof *number, "block", 5};
}

static void write_all(talea_container_t *container, talea_epoch_t *epoch, talea_oid_t oid, talea_queue_t *queue)
{
    talea_extent_t whole = {0, BLOCK};
    for (int i = 0; i < BLOCKS; i++) {
        memset(written[i], i % 251, BLOCK);
        /* The entry, its key and its extents are copied; the data is the library's until the end is told. */
        talea_update_t update = {.key = key_of(&i), .record_bytes = 1, .extents = &whole, .extent_count = 1, .data = written[i], .data_bytes = BLOCK};
        must(talea_object_update_start(container, epoch, oid, &update, 1, queue, NULL, (void *)(size_t)i), "starting an update");
        wait_until(queue, IN_FLIGHT - 1);
    }
    /* All ends are taken before the commit, which would be refused (TALEA_IN_FLIGHT) otherwise. */
    wait_until(queue, 0);
}

static void read_all(talea_container_t *container, talea_snapshot_t *step, talea_oid_t oid, talea_queue_t *queue)
{
    /* The entries of a fetch are the library's, too: it puts into them what it found. */
    static talea_fetch_t fetches[BLOCKS];
    talea_extent_t whole = {0, BLOCK};
    for (int i = 0; i < BLOCKS; i++) {
        fetches[i] = (talea_fetch_t){.key = key_of(&i), .record_bytes = 1, .extents = &whole, .extent_count = 1, .data = read_back[i], .data_bytes = BLOCK};
        must(talea_object_fetch_start(container, NULL, step, oid, &fetches[i], 1, queue, NULL, (void *)(size_t)i), "starting a fetch");
        wait_until(queue, IN_FLIGHT - 1);
    }
    wait_until(queue, 0);
}

int main(int count, char **arguments)
{
    talea_container_t *container;
    talea_snapshot_t *snapshot;
    talea_system_t *system;
    talea_epoch_t *epoch;
    talea_queue_t *queue;
    talea_step_t step;
    talea_oid_t oid;
    if (count != 2) {
        fprintf(stderr, "usage: blocks CONTAINER\n");
        return 2;
    }
    must(talea_connect(NULL, MINUTE_MS, &system), "connecting");
    must(talea_container_create(system, arguments[1], 1, &container), "opening the container");
    must(talea_object_new(container, "SX", &oid), "making an object's id");
    must(talea_queue_create(system, &queue), "making a queue");
    must(talea_epoch_begin(container, &epoch), "beginning an epoch");
    write_all(container, epoch, oid, queue);
    must(talea_epoch_commit(epoch, NULL, 0, NULL, 0, &step), "committing");
    talea_epoch_close(epoch);
    must(talea_snapshot_open(container, step.step, &snapshot), "opening the step");
    read_all(container, snapshot, oid, queue);
    int same = memcmp(written, read_back, sizeof written) == 0;
    printf("step %llu: %d blocks of %d bytes%s\n", (unsigned long long)step.step, BLOCKS, BLOCK, same ? "" : " that differ");
    talea_snapshot_close(snapshot);
    talea_queue_destroy(queue);
    talea_container_close(container);
    talea_disconnect(system);
    return same ? 0 : 1;
}
