/* Draws a field of doubles as a PNG picture. */
#ifndef HEAT_PICTURE_H
#define HEAT_PICTURE_H

/*
 * Draws ny rows of nx values between 0 and 1, averaged down to at most max_width columns, into the file at path; the file
 * appears whole or not at all.  Returns 0, or -1 with errno set.
 */
int picture_write(const char *path, const double *field, long nx, long ny, long max_width);

#endif
