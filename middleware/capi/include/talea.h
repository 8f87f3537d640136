/*
 * Talea's C API: systems, containers, objects, collective epochs, snapshots, and following a container's steps.
 *
 * Functions return TALEA_OK or another talea_code_t; talea_error() has the text for people, with the remedy. All are thread-safe.
 * In a forked child each returns TALEA_UNSUPPORTED. Link with -ltalea. Made by cbindgen: do not edit.
 */

#ifndef TALEA_H
#define TALEA_H

#include <stddef.h>
#include <stdint.h>

// What a follower has not received stays, whatever space it takes.
#define TALEA_LAGGING_KEEP 0

// It goes, and the follower is told of the gap (TALEA_RETENTION).
#define TALEA_LAGGING_DROP 1

// The next commit waits for the follower, as long as it lives.
#define TALEA_LAGGING_BLOCK 2

// Condition: the akey must not exist.
#define TALEA_IF_ABSENT 1

// Condition: the akey must exist.
#define TALEA_IF_PRESENT 2

// It is only in the later snapshot.
#define TALEA_ADDED 1

// It was written between the snapshots.
#define TALEA_CHANGED 2

// It is only in the earlier snapshot.
#define TALEA_REMOVED 3

// What a call returns.
typedef enum talea_code_t {
  // Done.
  TALEA_OK = 0,
  // Bad argument: null pointer, unknown flag, wrong size or handle.
  TALEA_ARGUMENT = 1,
  // The path does not name anything that Talea can open.
  TALEA_PATH = 2,
  // No such file, directory, object, key, snapshot or step.
  TALEA_NOT_FOUND = 3,
  // Exists already.
  TALEA_EXISTS = 4,
  // No such container.
  TALEA_NO_CONTAINER = 5,
  // No system of this user is running here.
  TALEA_NO_SYSTEM = 6,
  // Wrong secret, wrong user, or no right to do this.
  TALEA_ACCESS = 7,
  // Write to a read-only handle, snapshot or step view.
  TALEA_READ_ONLY = 8,
  // The pool is full.
  TALEA_NO_SPACE = 9,
  // A server is lost; the text names it.
  TALEA_SERVER_LOST = 10,
  // The deadline passed.
  TALEA_DEADLINE = 11,
  // The epoch is aborted or closed.
  TALEA_ABORTED = 12,
  // Not supported yet.
  TALEA_UNSUPPORTED = 13,
  // Bytes or log did not verify.
  TALEA_DATA_LOST = 14,
  // A foreign protocol or library version.
  TALEA_VERSION = 15,
  // A key, name or request beyond its limit.
  TALEA_TOO_LONG = 16,
  // The snapshot or step is below retention.
  TALEA_RETENTION = 17,
  // Outcome of a wait: the deadline passed and the producer may still make steps.
  TALEA_NOT_READY = 18,
  // Outcome of a wait: no step will follow.
  TALEA_END = 19,
  // Outcome of a wait: the producer has ended without a word.
  TALEA_PRODUCER_LOST = 20,
  // A condition of an update did not hold, or a transaction conflicted.
  TALEA_CONFLICT = 21,
  // Is a directory, or is none.
  TALEA_KIND = 22,
  // A directory is not empty.
  TALEA_NOT_EMPTY = 23,
  // Updates of the epoch are in flight; nothing was done: take their ends, then call again.
  TALEA_IN_FLIGHT = 24,
  // Anything else; the text tells.
  TALEA_OTHER = 99,
} talea_code_t;

// An open container.
typedef struct talea_container_t talea_container_t;

// This process's part of an open collective epoch.
typedef struct talea_epoch_t talea_epoch_t;

// Operations in flight.
typedef struct talea_queue_t talea_queue_t;

// A leased snapshot.
typedef struct talea_snapshot_t talea_snapshot_t;

// A follower of a container's steps.
typedef struct talea_subscription_t talea_subscription_t;

// A connection to a system.
typedef struct talea_system_t talea_system_t;

// Gets one name of a list; returns 0 to go on, anything else to stop.
typedef int (*talea_name_fn)(void *context, const void *name, size_t name_bytes);

// State of a container and of the servers that hold it.
typedef struct talea_container_info_t {
  // Servers that serve.
  uint64_t servers;
  // Targets that serve.
  uint64_t targets;
  // Last committed step, 0 if there is none.
  uint64_t steps;
  // Open transactions.
  uint64_t open_epochs;
  // Updates of open transactions, over all targets.
  uint64_t pending_updates;
  // Bytes written since the servers started, over all targets.
  uint64_t bytes_written;
} talea_container_info_t;

// An object id: 32 bits of Talea's (its class) and 96 of the program's.
typedef struct talea_oid_t {
  // Upper half; its upper 32 bits are the class.
  uint64_t hi;
  // Lower half.
  uint64_t lo;
} talea_oid_t;

// A pair of keys; both have 1 to 4096 bytes. In a punch or a list, no bytes stand for "all".
typedef struct talea_key_t {
  // Distribution key.
  const void *dkey;
  // Its length in bytes.
  size_t dkey_bytes;
  // Attribute key.
  const void *akey;
  // Its length in bytes.
  size_t akey_bytes;
} talea_key_t;

// A run of records of an array.
typedef struct talea_extent_t {
  // First record.
  uint64_t index;
  // Number of records, at least 1.
  uint64_t count;
} talea_extent_t;

// One difference between two snapshots: a value, or a run of records.
typedef struct talea_difference_t {
  // Its object.
  struct talea_oid_t oid;
  // Where in it.
  struct talea_key_t key;
  // Bytes of a record of an array; 0: a single value.
  uint32_t record_bytes;
  // TALEA_ADDED, TALEA_CHANGED or TALEA_REMOVED.
  uint32_t how;
  // The records of an array.
  struct talea_extent_t extent;
} talea_difference_t;

// Gets one difference; returns 0 to go on, anything else to stop.
typedef int (*talea_difference_fn)(void *context, const struct talea_difference_t *difference);

// A committed step, as a follower is told of it.
typedef struct talea_step_t {
  // Its number; the first is 1.
  uint64_t step;
  // Its stamp: a hybrid logical clock, microseconds since 1970 in the upper 52 bits.
  uint64_t stamp;
  // The container's last step by now.
  uint64_t latest_step;
} talea_step_t;

// One value or array of an update.
typedef struct talea_update_t {
  // Where.
  struct talea_key_t key;
  // Bytes of a record of an array; 0: a single value.
  uint32_t record_bytes;
  // Zero, or one of TALEA_IF_*.
  uint32_t condition;
  // Extents of an array; unused for a single value.
  const struct talea_extent_t *extents;
  // Number of extents.
  size_t extent_count;
  // The value, or the extents' records in order.
  const void *data;
  // Length in bytes.
  size_t data_bytes;
} talea_update_t;

// One value or array of a fetch.
typedef struct talea_fetch_t {
  // Where.
  struct talea_key_t key;
  // Bytes of a record of an array; 0: a single value.
  uint32_t record_bytes;
  // Set: 1 if there is a value.
  uint32_t found;
  // Extents of an array; unused for a single value.
  const struct talea_extent_t *extents;
  // Number of extents.
  size_t extent_count;
  // Takes the value, or the extents' records in order, holes as zeros.
  void *data;
  // Its length in bytes.
  size_t data_bytes;
  // Set: bytes of a single value.
  size_t value_bytes;
} talea_fetch_t;

// A piece of memory. It is laid out as `struct iovec` of <sys/uio.h>, and an array of those may be given in its place by a cast.
typedef struct talea_iovec_t {
  // Where it begins.
  void *base;
  // Its size in bytes; 0 is fine.
  size_t bytes;
} talea_iovec_t;

// As talea_update_t, with the data in several pieces of memory.
typedef struct talea_update_iov_t {
  // Where.
  struct talea_key_t key;
  // Bytes of a record of an array; 0: a single value.
  uint32_t record_bytes;
  // Zero, or one of TALEA_IF_*.
  uint32_t condition;
  // Extents of an array; unused for a single value.
  const struct talea_extent_t *extents;
  // Number of extents.
  size_t extent_count;
  // The pieces, which are the records of the extents, or the value, one after another. A piece may end anywhere.
  const struct talea_iovec_t *iov;
  // Number of pieces.
  size_t iov_count;
} talea_update_iov_t;

// As talea_fetch_t, with the data put into several pieces of memory.
typedef struct talea_fetch_iov_t {
  // Where.
  struct talea_key_t key;
  // Bytes of a record of an array; 0: a single value.
  uint32_t record_bytes;
  // Set: 1 if there is a value, or any record in the extents, else 0.
  uint32_t found;
  // Extents of an array; unused for a single value.
  const struct talea_extent_t *extents;
  // Number of extents.
  size_t extent_count;
  // The pieces that get the records of the extents, whose size they have together (holes read as zeros), or as much of a value as fits.
  const struct talea_iovec_t *iov;
  // Number of pieces.
  size_t iov_count;
  // Set: size of the value, also if the pieces are smaller.
  size_t value_bytes;
} talea_fetch_iov_t;

// Called when an operation has ended, by the thread that polls its queue: `code` is a talea_code_t, and `talea_error()` has the
// text.
typedef void (*talea_done_fn)(void *context, int code);

// The end of an operation.
typedef struct talea_event_t {
  // What was given when it was started.
  void *context;
  // What became of it: a talea_code_t.
  int code;
  // Text for people, NULL if all is well; lives until the next poll of the queue.
  const char *text;
} talea_event_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Makes a container and opens it; one that exists is opened if `exist_ok` is not 0, else it is TALEA_EXISTS.
//
// # Safety
// `name` is NUL-terminated, `out` valid for writing; null pointers are told.
int talea_container_create(struct talea_system_t *system,
                           const char *name,
                           int exist_ok,
                           struct talea_container_t **out);

// As talea_container_create(), for a container that keeps the last `kept_steps` steps (0: as many as others), and with what
// happens when a follower is further behind: TALEA_LAGGING_KEEP, _DROP or _BLOCK. One that exists stays as it is.
//
// # Safety
// `name` is NUL-terminated, `out` valid for writing; null pointers are told.
int talea_container_create_keeping(struct talea_system_t *system,
                                   const char *name,
                                   int exist_ok,
                                   uint64_t kept_steps,
                                   uint32_t lagging,
                                   struct talea_container_t **out);

// Opens a container by name.
//
// # Safety
// `name` is NUL-terminated, `out` valid for writing; null pointers are told.
int talea_container_open(struct talea_system_t *system,
                         const char *name,
                         struct talea_container_t **out);

// Closes a container. Epochs, snapshots and subscriptions opened through it stay open. A null pointer is fine.
//
// # Safety
// None: the handle is checked.
void talea_container_close(struct talea_container_t *container);

// Destroys a container and all it holds.
//
// # Safety
// `name` is NUL-terminated; a null pointer is told.
int talea_container_destroy(struct talea_system_t *system, const char *name);

// Gives the names of all containers to `each`.
//
// # Safety
// `each` is a function that can be called with `context`.
int talea_container_list(struct talea_system_t *system, talea_name_fn each, void *context);

// Tells the state of a container.
//
// # Safety
// `info` is valid for writing; a null pointer is told.
int talea_container_query(struct talea_container_t *container, struct talea_container_info_t *info);

// Says that no step will follow in this container: its followers get TALEA_END when they have received all.
//
// # Safety
// None: the handle is checked.
int talea_produce_end(struct talea_container_t *container);

// Gives what was written between two snapshots to `each`, in order of object, dkey, akey and record. What counts is that it was
// written, not whether the bytes are others.
//
// # Safety
// `each` is a function that can be called with `context`.
int talea_snapshot_diff(struct talea_container_t *container,
                        struct talea_snapshot_t *from,
                        struct talea_snapshot_t *to,
                        talea_difference_fn each,
                        void *context);

// Makes a step whose contents are those of an earlier step or (`name` not NULL) of a named snapshot. What lies between stays
// readable; what others commit meanwhile stays. Without any difference there is no new step, and `step` (or NULL) gets the last one.
//
// # Safety
// `name` is null or NUL-terminated, `attributes` valid for its size, `step` null or valid for writing.
int talea_rollback(struct talea_container_t *container,
                   uint64_t to_step,
                   const char *name,
                   const void *attributes,
                   size_t attributes_bytes,
                   struct talea_step_t *step);

// Begins a collective epoch.
//
// # Safety
// `out` is valid for writing; a null pointer is told.
int talea_epoch_begin(struct talea_container_t *container, struct talea_epoch_t **out);

// Bytes from which any process of the system's user can join the epoch. `*blob_bytes` is the room at `blob`, and then the size;
// with a null `blob` only the size is told.
//
// # Safety
// `blob_bytes` is valid, `blob` null or valid for writing `*blob_bytes` bytes.
int talea_epoch_blob(struct talea_epoch_t *epoch,
                     void *blob,
                     size_t *blob_bytes);

// This process's part of an epoch that another one began.
//
// # Safety
// `blob` is valid for reading `blob_bytes` bytes, `out` for writing; null pointers are told.
int talea_epoch_join(struct talea_container_t *container,
                     const void *blob,
                     size_t blob_bytes,
                     struct talea_epoch_t **out);

// What this process did in the epoch so far; TALEA_IN_FLIGHT while an update of it is in flight (take its end first:
// talea_queue_poll). Used like talea_epoch_blob. All processes' summaries have the same size and are merged (talea_summary_merge) for
// the one that commits.
//
// # Safety
// `summary_bytes` is valid, `summary` null or valid for writing `*summary_bytes` bytes.
int talea_epoch_summary(struct talea_epoch_t *epoch,
                        void *summary,
                        size_t *summary_bytes);

// Merges two summaries, in any order: into = into + from.
//
// # Safety
// Both are valid for `summary_bytes` bytes and do not overlap.
int talea_summary_merge(void *into, const void *from, size_t summary_bytes);

// Commits on ONE process, with the merged summaries of all that wrote (NULL: this process alone did). `attributes` travel with
// the step to its followers. `step` (or NULL) gets the step; without updates there is none, and it gets the last one.
//
// TALEA_IN_FLIGHT: updates of this handle have not ended, in a queue or in another thread. TALEA_ARGUMENT: this process has written
// since the summary was taken. Nothing was committed then and nothing is lost: the epoch is open still, and can be committed when
// the updates' ends were taken (talea_queue_poll), or with a new summary.
//
// # Safety
// Arrays are valid for their sizes, `step` is null or valid for writing.
int talea_epoch_commit(struct talea_epoch_t *epoch,
                       const void *summary,
                       size_t summary_bytes,
                       const void *attributes,
                       size_t attributes_bytes,
                       struct talea_step_t *step);

// Aborts on ONE process: nothing of the epoch remains. `reason`, for people, may be NULL.
//
// # Safety
// `reason` is null or NUL-terminated.
int talea_epoch_abort(struct talea_epoch_t *epoch, const char *reason);

// Gives this process's part back; one that was neither committed nor aborted is left to the others. A null pointer is fine.
//
// # Safety
// None: the handle is checked.
void talea_epoch_close(struct talea_epoch_t *epoch);

// Follows the container's steps after `after_step` (0: all that are retained). Nothing that a follower has not received is
// given up by retention.
//
// # Safety
// `out` is valid for writing; a null pointer is told.
int talea_subscribe(struct talea_container_t *container,
                    uint64_t after_step,
                    struct talea_subscription_t **out);

// Ends a subscription. A null pointer is fine.
//
// # Safety
// None: the handle is checked.
void talea_unsubscribe(struct talea_subscription_t *subscription);

// Waits for the next step, at most `deadline_ms` (0 only looks); threads may share a subscription, and each step is told to one of
// them. TALEA_OK: `out` has it. TALEA_NOT_READY: the deadline passed and the producer may still make steps. TALEA_END: none will
// follow. TALEA_PRODUCER_LOST: the producer has ended otherwise. TALEA_RETENTION: steps were given up before they were received; the
// next wait goes on after the gap.
//
// # Safety
// `out` is valid for writing; a null pointer is told.
int talea_wait(struct talea_subscription_t *subscription,
               int64_t deadline_ms,
               struct talea_step_t *out);

// The attributes that a step was committed with. `attributes` gets as many bytes as fit, `attributes_bytes` (or NULL) how many there are; a
// NULL buffer of size 0 asks for that alone. TALEA_TOO_LONG: the buffer is too small, and holds the first bytes. TALEA_RETENTION: the step
// is not kept any more.
//
// # Safety
// `attributes` is valid for writing `size` bytes, `attributes_bytes` null or valid for writing.
int talea_step_attributes(struct talea_container_t *container,
                          uint64_t step,
                          void *attributes,
                          size_t size,
                          size_t *attributes_bytes);

// Gives the files that a step wrote to `each`, by their names from the container's root on. None if the epoch named none: objects of the
// program's own, a rollback. `is_whole` (or NULL) gets 0 if there were more than a record holds. TALEA_RETENTION: the step is not kept
// any more.
//
// # Safety
// `each` is a function that can be called with `context`, `is_whole` null or valid for writing.
int talea_step_manifest(struct talea_container_t *container,
                        uint64_t step,
                        talea_name_fn each,
                        void *context,
                        int *is_whole);

// A fresh object id of a class such as "S1" or "SX", unlike any other in the container. Classes with replicas or parity ("RP_2",
// "EC_4P2") are TALEA_UNSUPPORTED, also for talea_object_id.
//
// # Safety
// `class` is NUL-terminated, `out` valid for writing; null pointers are told.
int talea_object_new(struct talea_container_t *container,
                     const char *class_,
                     struct talea_oid_t *out);

// The id of a class with 96 bits of the program's own choice: the lower 32 of `upper`, and `lower`.
//
// # Safety
// `class` is NUL-terminated, `out` valid for writing; null pointers are told.
int talea_object_id(const char *class_, uint32_t upper, uint64_t lower, struct talea_oid_t *out);

// Writes values and arrays with one fate: inside `epoch`, or (NULL) at once, and then of one dkey only. Returns when the servers
// hold them durably. A failed update fails the epoch's commit. Of entries that write the same records any may stay.
//
// A single value or a record has at most 1 MiB, inside an epoch or not. All of an update at once is one message: at most 1 MiB of
// data, 1024 entries, and some 63 KiB of keys and extents (16 bytes an extent, 24 an entry). More is TALEA_TOO_LONG; in an
// epoch an update may have any number of them.
//
// # Safety
// `entries` is an array of `count`; everything in it is valid for its size.
int talea_object_update(struct talea_container_t *container,
                        struct talea_epoch_t *epoch,
                        struct talea_oid_t oid,
                        const struct talea_update_t *entries,
                        size_t count);

// Reads values and arrays: inside `epoch`, in `snapshot`, or (both NULL) the latest committed state.
//
// # Safety
// `entries` is an array of `count`; everything in it is valid for its size, `data` for writing.
int talea_object_fetch(struct talea_container_t *container,
                       struct talea_epoch_t *epoch,
                       struct talea_snapshot_t *snapshot,
                       struct talea_oid_t oid,
                       struct talea_fetch_t *entries,
                       size_t count);

// Removes an object (no dkey), a dkey (no akey), an akey (`extent` NULL) or a range of an array: inside `epoch`, or (NULL) at once.
//
// # Safety
// `key` and its parts, and `extent`, are null or valid for reading.
int talea_object_punch(struct talea_container_t *container,
                       struct talea_epoch_t *epoch,
                       struct talea_oid_t oid,
                       const struct talea_key_t *key,
                       const struct talea_extent_t *extent);

// Gives the dkeys of an object (`dkey_bytes` 0), or the akeys of a dkey, to `each`, in order: inside `epoch`, in `snapshot`, or
// (both NULL) of the latest committed state.
//
// # Safety
// `dkey` is valid for its size; `each` is a function that can be called with `context`.
int talea_object_list(struct talea_container_t *container,
                      struct talea_epoch_t *epoch,
                      struct talea_snapshot_t *snapshot,
                      struct talea_oid_t oid,
                      const void *dkey,
                      size_t dkey_bytes,
                      talea_name_fn each,
                      void *context);

// As talea_object_update, with the data of each entry in pieces. They go to the server as they are.
//
// # Safety
// `entries` is an array of `count`; everything in it is valid for its size.
int talea_object_update_iov(struct talea_container_t *container,
                            struct talea_epoch_t *epoch,
                            struct talea_oid_t oid,
                            const struct talea_update_iov_t *entries,
                            size_t count);

// As talea_object_fetch, with the data of each entry put into pieces of memory, which do not overlap.
//
// # Safety
// `entries` is an array of `count`; everything in it is valid for its size, the pieces for writing.
int talea_object_fetch_iov(struct talea_container_t *container,
                           struct talea_epoch_t *epoch,
                           struct talea_snapshot_t *snapshot,
                           struct talea_oid_t oid,
                           struct talea_fetch_iov_t *entries,
                           size_t count);

// As talea_object_update_iov, but returns at once; see talea_object_update_start. The pieces stay the library's to read until the
// end is told; the list of them is copied.
//
// # Safety
// `entries` is an array of `count`; everything in it is valid for its size, the pieces until the operation's end is told.
int talea_object_update_iov_start(struct talea_container_t *container,
                                  struct talea_epoch_t *epoch,
                                  struct talea_oid_t oid,
                                  const struct talea_update_iov_t *entries,
                                  size_t count,
                                  struct talea_queue_t *queue,
                                  talea_done_fn done,
                                  void *context);

// As talea_object_fetch_iov, but returns at once; see talea_object_fetch_start. The entries and their pieces stay the library's to
// write until the end is told; the list of pieces is copied.
//
// # Safety
// `entries` is an array of `count`; everything in it is valid for its size, and the array and the pieces until the operation's end
// is told or its queue is destroyed.
int talea_object_fetch_iov_start(struct talea_container_t *container,
                                 struct talea_epoch_t *epoch,
                                 struct talea_snapshot_t *snapshot,
                                 struct talea_oid_t oid,
                                 struct talea_fetch_iov_t *entries,
                                 size_t count,
                                 struct talea_queue_t *queue,
                                 talea_done_fn done,
                                 void *context);

// A queue for operations on containers of `system`.
//
// # Safety
// `out` is null or valid for writing.
int talea_queue_create(struct talea_system_t *system, struct talea_queue_t **out);

// Gives a queue back, at once. Operations in flight are given up: whether updates among them were done is not known, and an epoch that
// they belong to fails. Nothing touches their memory afterwards, and no function is called: if one runs in another thread, this waits for
// its end. A function may destroy its own queue. A null pointer is fine.
//
// # Safety
// None: the handle is checked.
void talea_queue_destroy(struct talea_queue_t *queue);

// Operations started with a queue whose end was not told yet.
//
// # Safety
// `count` is null or valid for writing.
int talea_queue_pending(struct talea_queue_t *queue, size_t *count);

// Waits up to `timeout_ms` until an operation has ended, or none is in flight, and tells of those that have: calls the
// functions of those that have one, and puts up to `capacity` others into `events`; sets `count` to the number of events. With
// `timeout_ms` 0 it only looks. An event's text lives until the same thread's next poll of the queue, or its destruction; of a poll in
// a function until that function returns.
//
// Threads may share a queue: while one waits here others start operations, ask for the number pending, poll too, or destroy it (the
// waiting ones return without events then). Each end is told once, to one of them.
//
// # Safety
// `events` is valid for writing `capacity` events, `count` for writing; null pointers are told (`events` is unused if `capacity`
// is 0). Functions given with operations can be called.
int talea_queue_poll(struct talea_queue_t *queue,
                     int64_t timeout_ms,
                     struct talea_event_t *events,
                     size_t capacity,
                     size_t *count);

// Leases a snapshot of a step, or (`step` 0) of all that is committed now. It stays readable until it is closed or the process
// ends.
//
// # Safety
// `out` is valid for writing; a null pointer is told.
int talea_snapshot_open(struct talea_container_t *container,
                        uint64_t step,
                        struct talea_snapshot_t **out);

// Leases a named snapshot.
//
// # Safety
// `name` is NUL-terminated, `out` valid for writing; null pointers are told.
int talea_snapshot_open_named(struct talea_container_t *container,
                              const char *name,
                              struct talea_snapshot_t **out);

// Names the state of a step, or (`step` 0) of all that is committed now; it survives until it is destroyed.
//
// # Safety
// `name` is NUL-terminated; a null pointer is told.
int talea_snapshot_name(struct talea_container_t *container,
                        const char *name,
                        uint64_t step);

// Destroys a named snapshot.
//
// # Safety
// `name` is NUL-terminated; a null pointer is told.
int talea_snapshot_destroy(struct talea_container_t *container, const char *name);

// Last step that the snapshot contains; 0 if there is none.
//
// # Safety
// `step` is valid for writing; a null pointer is told.
int talea_snapshot_step(struct talea_snapshot_t *snapshot, uint64_t *step);

// Ends a snapshot's lease. A null pointer is fine.
//
// # Safety
// None: the handle is checked.
void talea_snapshot_close(struct talea_snapshot_t *snapshot);

// As `talea_object_update`, but returns at once; `queue` tells its end: calls `done` (if not NULL) with `context`, or gives an
// event with it. The data stays the library's to read until the end is told.
//
// Returns an error, and nothing is told later, if the operation could not be started: for a null pointer, a handle that is none,
// an unknown condition, an extent that is empty or ends beyond 2^64, an epoch that is over. All else is told as its end, with the code
// that the call without `_start` returns: keys and data of wrong sizes, what is beyond a limit, an object id of no class, and
// whatever the servers say. So it is for all functions `_start`.
//
// It ends by its connection's deadline (talea_connect), of which only time counts in which some thread waits in the library: what the
// program does between two calls is not held against it, but for up to 0.1 s at each poll that only looks: a program that never waits
// hears of dead servers, too. Such threads, in whatever call, carry it on.
//
// An update of an epoch is in flight from this call until its end is told: until then the epoch is not committed, and has no summary
// (TALEA_IN_FLIGHT, and nothing is lost: poll the queue until its updates have ended, then commit).
//
// # Safety
// `entries` is an array of `count`; everything in it is valid for its size, the data until the operation's end is told.
int talea_object_update_start(struct talea_container_t *container,
                              struct talea_epoch_t *epoch,
                              struct talea_oid_t oid,
                              const struct talea_update_t *entries,
                              size_t count,
                              struct talea_queue_t *queue,
                              talea_done_fn done,
                              void *context);

// As `talea_object_fetch`, but returns at once; see `talea_object_update_start`. The entries and their data stay the library's to
// write until the end is told.
//
// # Safety
// `entries` is an array of `count`; everything in it is valid for its size, and the array and the data until the operation's end
// is told or its queue is destroyed.
int talea_object_fetch_start(struct talea_container_t *container,
                             struct talea_epoch_t *epoch,
                             struct talea_snapshot_t *snapshot,
                             struct talea_oid_t oid,
                             struct talea_fetch_t *entries,
                             size_t count,
                             struct talea_queue_t *queue,
                             talea_done_fn done,
                             void *context);

// As `talea_object_punch`, but returns at once; see `talea_object_update_start`. Everything given is copied.
//
// # Safety
// As for `talea_object_punch`.
int talea_object_punch_start(struct talea_container_t *container,
                             struct talea_epoch_t *epoch,
                             struct talea_oid_t oid,
                             const struct talea_key_t *key,
                             const struct talea_extent_t *extent,
                             struct talea_queue_t *queue,
                             talea_done_fn done,
                             void *context);

// As `talea_epoch_commit`, but returns at once: the process computes on while the servers agree. `queue` tells the end, with the code that
// talea_epoch_commit returns; `step` (or NULL) has been set then. What is refused without any change (TALEA_IN_FLIGHT, TALEA_ARGUMENT)
// is returned here, and nothing is told later.
//
// From this call on nothing can be written in the epoch. The handle is closed by talea_epoch_close, before or after the end. If the queue
// is destroyed before the end, whether there is a step is not known here.
//
// # Safety
// Arrays are valid for their sizes, `step` is null or valid for writing until the end is told or the queue is destroyed.
int talea_epoch_commit_start(struct talea_epoch_t *epoch,
                             const void *summary,
                             size_t summary_bytes,
                             const void *attributes,
                             size_t attributes_bytes,
                             struct talea_step_t *step,
                             struct talea_queue_t *queue,
                             talea_done_fn done,
                             void *context);

// Connects to the system called `system`, or (NULL) to the one of this job. `deadline_ms`, at least 1, is also the deadline of
// each call that is made through the handle and does not take one of its own.
//
// # Safety
// `system` is null or NUL-terminated; `out` is null or valid for writing.
int talea_connect(const char *system,
                  int64_t deadline_ms,
                  struct talea_system_t **out);

// Gives a connection back. Containers opened through it stay open. A null pointer is fine.
//
// # Safety
// None: the handle is checked.
void talea_disconnect(struct talea_system_t *system);

// Text of this thread's last error, with its remedy; never null, valid until the thread's next failing call.
const char *talea_error(void);

// The library's version, such as "0.1.0".
const char *talea_version(void);

// Begins an independent transaction of this process. Its handle is used as that of an epoch: what is read and written inside of
// it is noted and pending. talea_tx_commit commits it, talea_epoch_abort aborts it, talea_epoch_close gives it back (and aborts it
// if it is open still). It makes no step.
//
// # Safety
// `out` is valid for writing; a null pointer is told.
int talea_tx_open(struct talea_container_t *container,
                  struct talea_epoch_t **out);

// Commits a transaction. TALEA_CONFLICT: something that it has read was changed by another one, and nothing of it remains: begin it
// anew. TALEA_IN_FLIGHT: updates of it have not ended, nothing was done, and it is open still: take their ends, then commit.
// `stamp` (or NULL) gets the stamp of its commit.
//
// # Safety
// `stamp` is null or valid for writing.
int talea_tx_commit(struct talea_epoch_t *transaction,
                    uint64_t *stamp);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TALEA_H */
