/*
 * A preload for laptops: lets MPICH's ranks share cores with other work.
 *
 * Debian's MPICH spins in ucp_worker_progress() while it waits for a message.  With more processes than cores, the spinning
 * ranks take the time slices of those that they wait for, and a barrier of 4 ranks on 2 cores takes 8 to 30 ms.  Giving up
 * the core whenever a round of progress found nothing brings that to under a millisecond.  It changes nothing else, and it
 * is no use where every rank has a core of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>

typedef unsigned (*progress_fn)(void *worker);

unsigned ucp_worker_progress(void *worker);

unsigned ucp_worker_progress(void *worker)
{
    static progress_fn real;
    progress_fn f = __atomic_load_n(&real, __ATOMIC_RELAXED);
    if (f == 0) {
        f = (progress_fn)dlsym(RTLD_NEXT, "ucp_worker_progress");
        if (f == 0)
            return 0;
        __atomic_store_n(&real, f, __ATOMIC_RELAXED);
    }
    unsigned events = f(worker);
    if (events == 0)
        sched_yield();
    return events;
}
