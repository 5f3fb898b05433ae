/* Preloaded by injections.py: the n-th call of one kind, on files below one folder, fails with a chosen error. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, READ, WRITE, FSYNC, RENAME, UNLINK, MMAP, MKDIR, LINK, STAT, LIST, PRINT, KINDS };

static char root[PATH_MAX], hit[PATH_MAX];
static int failing = -1, error, always;
static long at, counts[KINDS], hits;

/* Count from now on; kind -1 only counts. always: all calls from number n on fail, not that one alone. */
void fail(const char *folder, int kind, long n, int number, int from_then_on) {
    memset(counts, 0, sizeof counts);
    hits = 0, hit[0] = 0, failing = kind, at = n, error = number, always = from_then_on;
    snprintf(root, sizeof root, "%s/", folder);
}
long calls(int kind) { return counts[kind]; }
long failed(void) { return hits; }
const char *failed_path(void) { return hit; }

static int fails(int kind, const char *path) {
    long n = __atomic_add_fetch(&counts[kind], 1, __ATOMIC_SEQ_CST);
    if (kind != failing || (always ? n < at : n != at)) return 0;
    if (!__atomic_fetch_add(&hits, 1, __ATOMIC_SEQ_CST)) snprintf(hit, sizeof hit, "%s", path);
    errno = error;
    return 1;
}

static int on_file(int kind, int fd) {
    char link[64], path[PATH_MAX];
    if (!root[0]) return 0;
    if (kind == WRITE && (fd == 1)) return fails(PRINT, "stdout");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int saved = errno;
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = saved;
    if (n <= 0) return 0;
    path[n] = 0;
    return strncmp(path, root, strlen(root)) == 0 && fails(kind, path);
}

static int on_path(int kind, int folder, const char *name) {
    char link[64], path[2 * PATH_MAX];
    if (!root[0] || !name) return 0;
    if (name[0] == '/') {
        snprintf(path, sizeof path, "%s", name);
    } else {
        int saved = errno;
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
        errno = saved;
        if (n <= 0) return 0;
        snprintf(path + n, sizeof path - n, "/%s", name);
    }
    return strncmp(path, root, strlen(root)) == 0 && fails(kind, path);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define MODE int mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, int); va_end(l); }

#define OPEN_(name) int name(const char *path, int flags, ...) { \
    MODE REAL(name); return on_path(OPEN, AT_FDCWD, path) ? -1 : real(path, flags, mode); }
OPEN_(open) OPEN_(open64)
#define OPENAT_(name) int name(int folder, const char *path, int flags, ...) { \
    MODE REAL(name); return on_path(OPEN, folder, path) ? -1 : real(folder, path, flags, mode); }
OPENAT_(openat) OPENAT_(openat64)
#define FOPEN_(name) FILE *name(const char *path, const char *how) { \
    REAL(name); return on_path(OPEN, AT_FDCWD, path) ? NULL : real(path, how); }
FOPEN_(fopen) FOPEN_(fopen64)

#define ON_FD(kind, type, bad, name, parameters, arguments) type name parameters { \
    REAL(name); return on_file(kind, fd) ? bad : real arguments; }
ON_FD(READ, ssize_t, -1, read, (int fd, void *data, size_t size), (fd, data, size))
ON_FD(READ, ssize_t, -1, pread, (int fd, void *data, size_t size, off_t place), (fd, data, size, place))
ON_FD(READ, ssize_t, -1, pread64, (int fd, void *data, size_t size, off64_t place), (fd, data, size, place))
ON_FD(READ, ssize_t, -1, readv, (int fd, const struct iovec *data, int count), (fd, data, count))
ON_FD(WRITE, ssize_t, -1, write, (int fd, const void *data, size_t size), (fd, data, size))
ON_FD(WRITE, ssize_t, -1, pwrite, (int fd, const void *data, size_t size, off_t place), (fd, data, size, place))
ON_FD(WRITE, ssize_t, -1, pwrite64, (int fd, const void *data, size_t size, off64_t place), (fd, data, size, place))
ON_FD(WRITE, ssize_t, -1, writev, (int fd, const struct iovec *data, int count), (fd, data, count))
ON_FD(WRITE, ssize_t, -1, sendfile, (int fd, int from, off_t *place, size_t size), (fd, from, place, size))
ON_FD(WRITE, ssize_t, -1, sendfile64, (int fd, int from, off64_t *place, size_t size), (fd, from, place, size))
ON_FD(WRITE, int, -1, ftruncate, (int fd, off_t size), (fd, size))
ON_FD(WRITE, int, -1, ftruncate64, (int fd, off64_t size), (fd, size))
ON_FD(FSYNC, int, -1, fsync, (int fd), (fd))
ON_FD(FSYNC, int, -1, fdatasync, (int fd), (fd))
ON_FD(LIST, DIR *, NULL, fdopendir, (int fd), (fd))
ON_FD(STAT, int, -1, fstat, (int fd, struct stat *status), (fd, status))
ON_FD(STAT, int, -1, fstat64, (int fd, struct stat64 *status), (fd, status))
ON_FD(MMAP, void *, MAP_FAILED, mmap, (void *a, size_t size, int p, int flags, int fd, off_t place), (a, size, p, flags, fd, place))
ON_FD(MMAP, void *, MAP_FAILED, mmap64, (void *a, size_t size, int p, int flags, int fd, off64_t place), (a, size, p, flags, fd, place))

/* The C library's own streams, which FAISS uses. */
size_t fread(void *data, size_t size, size_t count, FILE *file) {
    REAL(fread);
    return on_file(READ, fileno(file)) ? 0 : real(data, size, count, file);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(fwrite);
    return on_file(WRITE, fileno(file)) ? 0 : real(data, size, count, file);
}

#define ON_PATH(kind, type, bad, name, parameters, folder, arguments) type name parameters { \
    REAL(name); return on_path(kind, folder, path) ? bad : real arguments; }
ON_PATH(RENAME, int, -1, rename, (const char *from, const char *path), AT_FDCWD, (from, path))
ON_PATH(RENAME, int, -1, renameat, (int f, const char *from, int folder, const char *path), folder, (f, from, folder, path))
ON_PATH(UNLINK, int, -1, unlink, (const char *path), AT_FDCWD, (path))
ON_PATH(UNLINK, int, -1, rmdir, (const char *path), AT_FDCWD, (path))
ON_PATH(UNLINK, int, -1, unlinkat, (int folder, const char *path, int flags), folder, (folder, path, flags))
ON_PATH(MKDIR, int, -1, mkdir, (const char *path, mode_t mode), AT_FDCWD, (path, mode))
ON_PATH(MKDIR, int, -1, mkdirat, (int folder, const char *path, mode_t mode), folder, (folder, path, mode))
ON_PATH(LINK, int, -1, link, (const char *from, const char *path), AT_FDCWD, (from, path))
ON_PATH(LINK, int, -1, linkat, (int f, const char *from, int folder, const char *path, int flags), folder, (f, from, folder, path, flags))
ON_PATH(LINK, int, -1, symlink, (const char *from, const char *path), AT_FDCWD, (from, path))
ON_PATH(LIST, DIR *, NULL, opendir, (const char *path), AT_FDCWD, (path))
ON_PATH(STAT, int, -1, stat, (const char *path, struct stat *status), AT_FDCWD, (path, status))
ON_PATH(STAT, int, -1, lstat, (const char *path, struct stat *status), AT_FDCWD, (path, status))
ON_PATH(STAT, int, -1, stat64, (const char *path, struct stat64 *status), AT_FDCWD, (path, status))
ON_PATH(STAT, int, -1, lstat64, (const char *path, struct stat64 *status), AT_FDCWD, (path, status))
ON_PATH(STAT, int, -1, fstatat, (int folder, const char *path, struct stat *status, int flags), folder, (folder, path, status, flags))
ON_PATH(STAT, int, -1, fstatat64, (int folder, const char *path, struct stat64 *status, int flags), folder, (folder, path, status, flags))
