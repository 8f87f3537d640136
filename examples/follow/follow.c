/*
 * The smallest consumer: told of each step that a container commits, it opens that step of a file with HDF5 and prints what is in it.
 *
 *   follow CONTAINER FILE        as a companion (talea run --with 'follow run heat.h5' -- ...), or by talea exec in another shell
 *
 * A step never changes, however long it is read and whatever is written meanwhile.  HDF5 reads it through MPI-IO, as it does any file;
 * talea.h is only for being told.  Exit status: 0 the producer has ended, 1 an error, 2 wrong usage, 3 the producer was lost.
 */
#include <hdf5.h>
#include <mpi.h>
#include <stdio.h>
#include <talea.h>

static int failed(const char *what)
{
    fprintf(stderr, "follow: %s: %s\n", what, talea_error());
    return 1;
}

static herr_t print_size(hid_t group, const char *name, const H5L_info_t *info, void *context)
{
    hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    (void)info, (void)context;
    if (dataset < 0)
        return -1;
    hid_t space = H5Dget_space(dataset);
    printf(" %s[%lld]", name, (long long)H5Sget_simple_extent_npoints(space));
    H5Sclose(space);
    return H5Dclose(dataset);
}

/* Prints the datasets of one step of the file. */
static int show(const char *container, const char *file, const talea_step_t *step)
{
    char path[1024];
    snprintf(path, sizeof path, "/talea/%s/.talea/steps/%llu/%s", container, (unsigned long long)step->step, file);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_mpio(access, MPI_COMM_SELF, MPI_INFO_NULL); /* by MPI-IO, also on one rank */
    hid_t opened = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (opened < 0)
        return 1; /* HDF5 has said why */
    printf("step %llu:", (unsigned long long)step->step);
    int status = H5Literate(opened, H5_INDEX_NAME, H5_ITER_INC, NULL, print_size, NULL) < 0;
    printf(" (%llu behind)\n", (unsigned long long)(step->latest_step - step->step));
    fflush(stdout);
    return H5Fclose(opened) < 0 || status;
}

static int follow(const char *container, const char *file, talea_subscription_t *steps)
{
    talea_step_t step;
    for (;;) {
        switch (talea_wait(steps, 1000, &step)) {
        case TALEA_OK:
            if (show(container, file, &step) != 0)
                return 1;
            break;
        case TALEA_NOT_READY: /* nothing yet: ask again */
            break;
        case TALEA_END: /* the producer is done, and all of its steps were told */
            return 0;
        case TALEA_PRODUCER_LOST: /* what it has committed was told, and can be read */
            failed(container);
            return 3;
        default:
            return failed(container);
        }
    }
}

int main(int argc, char **argv)
{
    talea_system_t *system;
    talea_container_t *container;
    talea_subscription_t *steps;
    if (argc != 3) {
        fputs("usage: follow CONTAINER FILE\n", stderr);
        return 2;
    }
    MPI_Init(&argc, &argv);
    int status = 1;
    if (talea_connect(NULL, 30000, &system) != TALEA_OK) { /* NULL: the system of this job */
        status = failed("no system");
    } else {
        if (talea_container_open(system, argv[1], &container) != TALEA_OK) {
            status = failed(argv[1]);
        } else {
            if (talea_subscribe(container, 0, &steps) != TALEA_OK) { /* 0: all steps that are still there */
                status = failed(argv[1]);
            } else {
                status = follow(argv[1], argv[2], steps);
                talea_unsubscribe(steps);
            }
            talea_container_close(container);
        }
        talea_disconnect(system);
    }
    MPI_Finalize();
    return status;
}
