/* Recording -> log-mel energies -> an autoencoder's vectors, in C99 and its math library alone.

   cc -O2 -std=c99 frontend.c -o frontend -lm
   ./frontend FOLDER/frontend.txt FOLDER/clip_1.wav FOLDER/clip_1.txt

   computes them of a wav file of 16 bits by the parameters that 05_export.py has written, and compares with its test
   vectors: largest and mean difference, and the time for a second of sound. The exit code is 1 where they differ by more
   than the bounds, 2 for an error.

   Numbers are float64 up to the logarithm, as in the system's own transform. In float32 (-DREAL=float), for processors
   that have no other, noise is off by less than 0.00001 dB, but bands without sound beside a tone at full scale by 0.05
   to 0.4 dB. n_fft is to be a power of two. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef REAL
#define REAL double
#endif
typedef REAL real;

#define PI 3.14159265358979323846
#define EPSILON 2.220446049250313e-16 /* added to each energy, so that silence has a logarithm */
#define LARGEST 1e-3                  /* [dB] bounds of the differences */
#define MEAN 1e-4

static void fail(const char *path, const char *reason)
{
    fprintf(stderr, "%s: %s\n", path, reason);
    exit(2);
}

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n ? n : 1, size);
    if (!memory)
        fail("memory", "not enough");
    return memory;
}

static FILE *open_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail(path, "cannot be opened");
    return file;
}

/* ---- parameters ---- */

typedef struct {
    long sample_rate, n_fft, hop_length, n_mels; /* [Hz], [samples], [samples] */
    double power;                                /* of the magnitudes: 2 for energies */
    int reflect;                                 /* what stands before and behind the clip: its mirror image, or zeros */
    long frames, hop;                            /* in a vector, and from one to the next; 0: there are no vectors */
    long *first_bin, *n_weights;                 /* of each mel filter */
    real **weights;
    real *window, *cosine, *sine; /* Hann's; of the transform */
} Frontend;

static double value_of(FILE *file, const char *path, const char *name)
{
    char found[32];
    double value;
    if (fscanf(file, "%31s %lf", found, &value) != 2 || strcmp(found, name))
        fail(path, name);
    return value;
}

static void read_filters(Frontend *f, FILE *file, const char *path)
{
    f->first_bin = allocate(f->n_mels, sizeof(long));
    f->n_weights = allocate(f->n_mels, sizeof(long));
    f->weights = allocate(f->n_mels, sizeof(real *));
    for (long band = 0; band < f->n_mels; band++) {
        long *n = &f->n_weights[band];
        if (fscanf(file, "%ld %ld", &f->first_bin[band], n) != 2 || f->first_bin[band] < 0 || *n < 0 ||
            *n > f->n_fft / 2 + 1 - f->first_bin[band])
            fail(path, "not a mel filter");
        f->weights[band] = allocate(*n, sizeof(real));
        for (long k = 0; k < *n; k++) {
            double weight;
            if (fscanf(file, "%lf", &weight) != 1)
                fail(path, "not a weight of a mel filter");
            f->weights[band][k] = (real)weight;
        }
    }
}

static Frontend read_frontend(const char *path)
{
    Frontend f;
    char name[32], mode[32];
    FILE *file = open_file(path);
    f.sample_rate = (long)value_of(file, path, "sample_rate");
    f.n_fft = (long)value_of(file, path, "n_fft");
    f.hop_length = (long)value_of(file, path, "hop_length");
    f.n_mels = (long)value_of(file, path, "n_mels");
    f.power = value_of(file, path, "power");
    if (fscanf(file, "%31s %31s", name, mode) != 2 || strcmp(name, "pad_mode"))
        fail(path, "pad_mode");
    f.reflect = !strcmp(mode, "reflect");
    f.frames = (long)value_of(file, path, "frames");
    f.hop = (long)value_of(file, path, "hop");
    if (f.n_fft < 4 || f.n_fft & (f.n_fft - 1))
        fail(path, "n_fft: this transform takes a power of two, 4 at least");
    if (f.hop_length < 1 || f.n_mels < 1 || f.frames < 0 || (f.frames && f.hop < 1))
        fail(path, "hop_length, n_mels, frames or hop out of range");
    read_filters(&f, file, path);
    fclose(file);
    f.window = allocate(f.n_fft, sizeof(real));
    f.cosine = allocate(f.n_fft, sizeof(real));
    f.sine = allocate(f.n_fft, sizeof(real));
    for (long k = 0; k < f.n_fft; k++) {
        f.cosine[k] = (real)cos(2 * PI * k / f.n_fft);
        f.sine[k] = (real)sin(2 * PI * k / f.n_fft);
        f.window[k] = (real)(0.5 - 0.5 * cos(2 * PI * k / f.n_fft));
    }
    return f;
}

/* ---- sound ---- */

static unsigned long little_endian(const unsigned char *bytes, int n)
{
    unsigned long value = 0;
    while (n--)
        value = value << 8 | bytes[n];
    return value;
}

/* First channel of a wav file of 16 bits, in [-1, 1). */
static real *read_wav(const char *path, long sample_rate, long *n_samples)
{
    unsigned char head[12], format[16];
    unsigned long channels = 0, size;
    FILE *file = open_file(path);
    if (fread(head, 1, 12, file) != 12 || memcmp(head, "RIFF", 4) || memcmp(head + 8, "WAVE", 4))
        fail(path, "no wav file");
    for (;;) {
        if (fread(head, 1, 8, file) != 8)
            fail(path, "has no samples");
        size = little_endian(head + 4, 4);
        if (!memcmp(head, "data", 4))
            break;
        size += size & 1;
        if (!memcmp(head, "fmt ", 4) && size >= 16) {
            if (fread(format, 1, 16, file) != 16)
                fail(path, "ends in its header");
            size -= 16;
            channels = little_endian(format + 2, 2);
            if (little_endian(format, 2) == 3 || little_endian(format + 14, 2) != 16)
                fail(path, "samples are no integers of 16 bits");
            if ((long)little_endian(format + 4, 4) != sample_rate)
                fail(path, "has another sample rate than the training clips");
        }
        fseek(file, (long)size, SEEK_CUR);
    }
    if (!channels)
        fail(path, "has no format before its samples");
    unsigned char *bytes = allocate(size, 1);
    *n_samples = (long)(fread(bytes, 1, size, file) / (2 * channels));
    fclose(file);
    if (!*n_samples)
        fail(path, "has no samples");
    real *samples = allocate(*n_samples, sizeof(real));
    for (long k = 0; k < *n_samples; k++)
        samples[k] = (real)(int16_t)little_endian(bytes + 2 * channels * k, 2) / 32768;
    free(bytes);
    return samples;
}

/* ---- sound -> log-mel energies -> vectors ---- */

/* Discrete Fourier transform of n complex numbers in place, n a power of two; n_fft is a multiple of n. */
static void transform(const Frontend *f, real *re, real *im, long n)
{
    for (long k = 1, j = 0; k < n; k++) { /* in the order of reversed bits */
        long bit = n >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j ^= bit;
        if (k < j) {
            real r = re[k], i = im[k];
            re[k] = re[j], im[k] = im[j];
            re[j] = r, im[j] = i;
        }
    }
    for (long half = 1; half < n; half *= 2)
        for (long k = 0; k < half; k++) {
            real c = f->cosine[k * (f->n_fft / (2 * half))], s = f->sine[k * (f->n_fft / (2 * half))];
            for (long a = k, b = k + half; b < n; a += 2 * half, b += 2 * half) {
                real r = c * re[b] + s * im[b], i = c * im[b] - s * re[b];
                re[b] = re[a] - r, im[b] = im[a] - i;
                re[a] += r, im[a] += i;
            }
        }
}

/* |spectrum|^power of n_fft samples, whose even ones are in re and odd ones in im, n_fft / 2 each; into n_fft / 2 + 1.

   One transform of half the length: of the even samples' spectrum E and the odd ones' O it gives Z = E + iO, so that
   E[k] = (Z[k] + conj(Z[-k])) / 2, O[k] = (Z[k] - conj(Z[-k])) / 2i, and the spectrum is E[k] + exp(-2 pi i k / n) O[k]. */
static void spectrum(const Frontend *f, real *re, real *im, real *energy)
{
    long half = f->n_fft / 2;
    transform(f, re, im, half);
    for (long k = 0; k <= half; k++) {
        long a = k % half, b = (half - k) % half;
        real even_re = (re[a] + re[b]) / 2, even_im = (im[a] - im[b]) / 2;
        real odd_re = (im[a] + im[b]) / 2, odd_im = (re[b] - re[a]) / 2;
        real r = even_re + f->cosine[k] * odd_re + f->sine[k] * odd_im;
        real i = even_im + f->cosine[k] * odd_im - f->sine[k] * odd_re;
        energy[k] = r * r + i * i;
        if (f->power != 2)
            energy[k] = (real)pow(energy[k], f->power / 2);
    }
}

/* Sample of the clip, or of what stands around it; the mirror image goes to and fro where the clip is short. */
static real sample(const Frontend *f, const real *samples, long n, long k)
{
    if (k >= 0 && k < n)
        return samples[k];
    if (!f->reflect)
        return 0;
    if (n == 1)
        return samples[0];
    k = labs(k) % (2 * (n - 1));
    return samples[k < n ? k : 2 * (n - 1) - k];
}

/* (n_samples) -> (n_frames, n_mels) [dB]. */
static float *log_mel_energies(const Frontend *f, const real *samples, long n_samples, long *n_frames)
{
    long half = f->n_fft / 2;
    real *re = allocate(half, sizeof(real)), *im = allocate(half, sizeof(real));
    real *energy = allocate(half + 1, sizeof(real));
    *n_frames = 1 + n_samples / f->hop_length;
    float *log_mel = allocate(*n_frames * f->n_mels, sizeof(float));
    for (long frame = 0; frame < *n_frames; frame++) {
        long start = frame * f->hop_length - half;
        for (long k = 0; k < half; k++) {
            re[k] = f->window[2 * k] * sample(f, samples, n_samples, start + 2 * k);
            im[k] = f->window[2 * k + 1] * sample(f, samples, n_samples, start + 2 * k + 1);
        }
        spectrum(f, re, im, energy);
        for (long band = 0; band < f->n_mels; band++) {
            real sum = 0;
            for (long k = 0; k < f->n_weights[band]; k++)
                sum += f->weights[band][k] * energy[f->first_bin[band] + k];
            log_mel[frame * f->n_mels + band] = (float)(20 / f->power * log10(sum + EPSILON));
        }
    }
    free(re), free(im), free(energy);
    return log_mel;
}

/* (n_frames, n_mels) -> (n_vectors, frames * n_mels), oldest frame first. */
static float *stack_frames(const Frontend *f, const float *log_mel, long n_frames, long *n_vectors)
{
    long size = f->frames * f->n_mels;
    *n_vectors = n_frames < f->frames ? 0 : 1 + (n_frames - f->frames) / f->hop;
    float *vectors = allocate(*n_vectors * size, sizeof(float));
    for (long v = 0; v < *n_vectors; v++) /* the frames of a vector lie one behind the other already */
        memcpy(vectors + v * size, log_mel + v * f->hop * f->n_mels, size * sizeof(float));
    return vectors;
}

/* ---- comparison ---- */

/* Reads up to an array's name, passing over the others; its numbers of rows and of numbers in each, 0 where there is none. */
static void find(FILE *file, const char *name, long *rows, long *columns)
{
    char found[64];
    int n_dimensions;
    rewind(file);
    while (fscanf(file, "%63s %d", found, &n_dimensions) == 2) {
        *columns = 1;
        for (int k = 0; k < n_dimensions; k++) {
            long size;
            if (fscanf(file, "%ld", &size) != 1)
                break;
            *(k ? columns : rows) = k ? *columns * size : size;
        }
        if (!strcmp(found, name))
            return;
        for (long k = 0; k < *rows * *columns; k++)
            if (fscanf(file, "%*s") == EOF)
                break;
    }
    *rows = *columns = 0;
}

/* Whether values, (rows, columns), are those of the file within the bounds; of vectors it has the first ones. */
static int compare(FILE *file, const char *path, const char *name, const float *values, long rows, long columns)
{
    long n_rows, n_columns;
    double largest = 0, sum = 0;
    find(file, name, &n_rows, &n_columns);
    if (n_rows < 1 || n_columns != columns || n_rows > rows || (n_rows < rows && strcmp(name, "inputs")))
        fail(path, name);
    for (long k = 0; k < n_rows * columns; k++) {
        double expected;
        if (fscanf(file, "%lf", &expected) != 1)
            fail(path, name);
        double error = fabs(values[k] - expected);
        if (!(error <= largest)) /* also of what is no number */
            largest = error;
        sum += error;
    }
    double mean = sum / (n_rows * columns);
    printf("%s: %ld x %ld, largest difference %.2g dB, mean %.2g dB\n", name, n_rows, columns, largest, mean);
    return largest <= LARGEST && mean <= MEAN;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        fail(argv[0], "expected three files: frontend.txt, a wav file, and its test vectors as text");
    Frontend f = read_frontend(argv[1]);
    long n_samples, n_frames, n_vectors = 0;
    real *samples = read_wav(argv[2], f.sample_rate, &n_samples);
    clock_t start = clock();
    float *log_mel = log_mel_energies(&f, samples, n_samples, &n_frames), *vectors = NULL;
    if (f.frames)
        vectors = stack_frames(&f, log_mel, n_frames, &n_vectors);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    FILE *file = open_file(argv[3]);
    int good = compare(file, argv[3], "log_mel", log_mel, n_frames, f.n_mels);
    if (f.frames)
        good &= compare(file, argv[3], "inputs", vectors, n_vectors, f.frames * f.n_mels);
    fclose(file);
    printf("%.3g ms for a second of sound\n", 1000 * seconds * f.sample_rate / n_samples);
    return good ? 0 : 1;
}
