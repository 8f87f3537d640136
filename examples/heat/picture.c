/* Draws a field of doubles as a PNG picture: averages cells down to pixels and colours them from black through red to white. */
#include "picture.h"

#include <errno.h>
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Colours at equal distances along the scale: dark violet, purple, red, orange, yellow, near white. */
static const unsigned char stops[][3] = {
    {4, 3, 18}, {48, 14, 92}, {128, 30, 108}, {206, 62, 70}, {248, 138, 32}, {250, 206, 72}, {252, 252, 214},
};

static void colour(double heat, unsigned char *rgb)
{
    const int last = (int)(sizeof stops / sizeof stops[0]) - 1;
    double place = heat > 0 ? sqrt(heat < 1 ? heat : 1) * last : 0; /* the root shows faint warmth */
    int below = (int)place < last ? (int)place : last - 1;
    double part = place - below;
    for (int c = 0; c < 3; c++)
        rgb[c] = (unsigned char)lround(stops[below][c] + part * (stops[below + 1][c] - stops[below][c]));
}

/* One row of pixels; each is the mean of up to scale * scale cells. */
static void draw_row(unsigned char *pixels, const double *field, long nx, long ny, long scale, long row)
{
    long width = (nx + scale - 1) / scale;
    for (long column = 0; column < width; column++) {
        double sum = 0;
        long cells = 0;
        for (long y = row * scale; y < (row + 1) * scale && y < ny; y++)
            for (long x = column * scale; x < (column + 1) * scale && x < nx; x++, cells++)
                sum += field[y * nx + x];
        colour(sum / (double)cells, pixels + 3 * column);
    }
}

static int encode(FILE *out, const unsigned char *image, long width, long height)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
    if (info == NULL || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return -1;
    }
    png_init_io(png, out);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(png, 4);
    png_write_info(png, info);
    for (long row = 0; row < height; row++)
        png_write_row(png, image + 3 * width * row);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return 0;
}

int picture_write(const char *path, const double *field, long nx, long ny, long max_width)
{
    char partial[4096];
    long scale = (nx + max_width - 1) / max_width;
    long width = (nx + scale - 1) / scale, height = (ny + scale - 1) / scale;
    if (snprintf(partial, sizeof partial, "%s.part", path) >= (int)sizeof partial) {
        errno = ENAMETOOLONG;
        return -1;
    }
    unsigned char *image = malloc((size_t)(3 * width * height));
    if (image == NULL)
        return -1;
    for (long row = 0; row < height; row++)
        draw_row(image + 3 * width * row, field, nx, ny, scale, row);
    FILE *out = fopen(partial, "wb");
    int failed = out == NULL || encode(out, image, width, height) != 0;
    if (out != NULL && fclose(out) != 0)
        failed = 1;
    free(image);
    if (failed || rename(partial, path) != 0) {
        int why = errno;
        remove(partial);
        errno = why;
        return -1;
    }
    return 0;
}
