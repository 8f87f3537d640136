/* What every test program needs: a check that says where it failed and ends all ranks. */
#ifndef CHECK_H
#define CHECK_H
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if MPI_VERSION < 4 /* The large-count functions came with MPI 4. */
#define MPI_File_read_c MPI_File_read
#define MPI_File_iread_at_all_c MPI_File_iread_at_all
#endif

#ifdef MPI_ABI_VERSION /* The standard ABI knows no MPI_Fint. */
#define MPI_File_c2f MPI_File_toint
#define MPI_File_f2c MPI_File_fromint
#endif

#define CHECK(condition)                                                                             \
    do {                                                                                             \
        if (!(condition)) {                                                                          \
            int rank_ = -1;                                                                          \
            MPI_Comm_rank(MPI_COMM_WORLD, &rank_);                                                   \
            fprintf(stderr, "%s:%d: rank %d: %s does not hold\n", __FILE__, __LINE__, rank_, #condition); \
            MPI_Abort(MPI_COMM_WORLD, 3);                                                            \
        }                                                                                            \
    } while (0)

/* The call must succeed; else MPI's text is printed. */
#define OK(call)                                                                                     \
    do {                                                                                             \
        int code_ = (call);                                                                          \
        if (code_ != MPI_SUCCESS) {                                                                  \
            char text_[MPI_MAX_ERROR_STRING];                                                        \
            int length_;                                                                             \
            MPI_Error_string(code_, text_, &length_);                                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, text_);                    \
            MPI_Abort(MPI_COMM_WORLD, 3);                                                            \
        }                                                                                            \
    } while (0)

static inline int class_of(int code) {
    int class = -1;
    MPI_Error_class(code, &class);
    return class;
}

/* The call must fail with this class, and its text must hold this word. */
static inline void expect(const char *where, int line, int code, int class, const char *word) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    if (class_of(code) != class || !strstr(text, word)) {
        fprintf(stderr, "%s:%d: class %d (wanted %d), text \"%s\" (wanted \"%s\")\n", where, line, class_of(code), class, text, word);
        MPI_Abort(MPI_COMM_WORLD, 3);
    }
}
#define FAILS(call, class, word) expect(__FILE__, __LINE__, (call), (class), (word))
#endif
