/* Loads the library named by the second argument privately: no MPI is in the global scope. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    (void)argc;
    void *library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
    int (*use)(const char *) = library ? (int (*)(const char *))dlsym(library, "use_mpi") : NULL;
    if (!use) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    return use(argv[1]);
}
