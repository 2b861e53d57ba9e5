/* Records every change of a file below a folder: preloaded (LD_PRELOAD), started by record_start.

   Each record is a header and what it says follows: two paths and data. `power.py` plays them
   back as a disk that loses what was not synced. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

struct header {
    char kind;
    char directory;
    uint16_t path_size, other_size;
    uint32_t data_size;
    uint64_t inode, offset;
    int64_t mtime, ctime;
} __attribute__((packed));

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static int log_fd = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void record_start(const char *below, const char *log) {
    snprintf(folder, sizeof folder, "%s/", below);
    log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t size) {
    if (REAL(write)(log_fd, data, size) != (ssize_t)size) abort();
}

static int64_t ns(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }

static void record(char kind, const struct stat *found, const char *path, const char *other,
                   uint64_t offset, const void *data, size_t size) {
    struct header head = {.kind = kind, .path_size = strlen(path), .other_size = strlen(other),
                          .data_size = size, .offset = offset};
    if (found) {
        head.directory = S_ISDIR(found->st_mode);
        head.inode = found->st_ino;
        head.mtime = ns(found->st_mtim);
        head.ctime = ns(found->st_ctim);
    }
    put(&head, sizeof head);
    put(path, head.path_size);
    put(other, head.other_size);
    put(data, size);
}

/* A mark of the recorded program: something was promised to the user here. */
void record_mark(const char *text) {
    if (log_fd < 0) return;
    pthread_mutex_lock(&mutex);
    record('!', NULL, text, "", 0, "", 0);
    pthread_mutex_unlock(&mutex);
}

static int is_below(const char *path) { return strncmp(path, folder, strlen(folder)) == 0; }

/* The absolute path that `path` means at the folder `at`; whether it is to be recorded. */
static int absolute(char *out, int at, const char *path) {
    if (log_fd < 0) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t size = readlink(link, base, sizeof base - 1);
        if (size < 0) return 0;
        base[size] = 0;
        if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) abort();
    }
    return is_below(out);
}

static int watched(int fd, struct stat *found) {
    char link[64], path[PATH_MAX];
    if (log_fd < 0 || fd == log_fd) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    if (!is_below(path) && strncmp(path, folder, strlen(folder) - 1) != 0) return 0;
    return fstat(fd, found) == 0;
}

#define LOCKED(type, call)              \
    pthread_mutex_lock(&mutex);         \
    type result = call;                 \
    int saved = errno

#define DONE                            \
    errno = saved;                      \
    pthread_mutex_unlock(&mutex);       \
    return result

static void wrote(int fd, const void *data, ssize_t size, off64_t offset) {
    struct stat found;
    if (watched(fd, &found)) record('W', &found, "", "", offset, data, size);
}

ssize_t write(int fd, const void *data, size_t size) {
    LOCKED(ssize_t, REAL(write)(fd, data, size));
    if (result > 0) wrote(fd, data, result, lseek(fd, 0, SEEK_CUR) - result);
    DONE;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    LOCKED(ssize_t, REAL(pwrite)(fd, data, size, offset));
    if (result > 0) wrote(fd, data, result, offset);
    DONE;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    LOCKED(ssize_t, REAL(pwrite64)(fd, data, size, offset));
    if (result > 0) wrote(fd, data, result, offset);
    DONE;
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    off64_t start = from ? *from : lseek(in, 0, SEEK_CUR);
    off64_t target = to ? *to : lseek(out, 0, SEEK_CUR);
    LOCKED(ssize_t, REAL(copy_file_range)(in, from, out, to, size, flags));
    if (result > 0) {
        char *data = malloc(result);
        if (pread(in, data, result, start) != result) abort();
        wrote(out, data, result, target);
        free(data);
    }
    DONE;
}
static void changed(char kind, int fd, uint64_t offset) {
    struct stat found;
    if (watched(fd, &found)) record(kind, &found, "", "", offset, "", 0);
}
int fsync(int fd) {
    LOCKED(int, REAL(fsync)(fd));
    if (result == 0) changed('S', fd, 0);
    DONE;
}
int fdatasync(int fd) {
    LOCKED(int, REAL(fdatasync)(fd));
    if (result == 0) changed('S', fd, 0);
    DONE;
}
int syncfs(int fd) {
    LOCKED(int, REAL(syncfs)(fd));
    if (result == 0) changed('Y', fd, 0);
    DONE;
}
int ftruncate(int fd, off_t size) {
    LOCKED(int, REAL(ftruncate)(fd, size));
    if (result == 0) changed('T', fd, size);
    DONE;
}
int ftruncate64(int fd, off64_t size) {
    LOCKED(int, REAL(ftruncate64)(fd, size));
    if (result == 0) changed('T', fd, size);
    DONE;
}

/* A name that now is a file's: with its bytes, which a program that is not recorded may have
   written (a compiler's result). */
static void named(char kind, const char *from, const char *to) {
    struct stat found;
    if (lstat(to, &found) < 0) return;
    char *data = NULL;
    ssize_t size = 0;
    if (S_ISREG(found.st_mode)) {
        data = malloc(found.st_size + 1);
        int fd = REAL(open)(to, O_RDONLY | O_CLOEXEC);
        size = pread(fd, data, found.st_size, 0);
        close(fd);
    }
    record(kind, &found, from, to, 0, data ? data : "", size > 0 ? size : 0);
    free(data);
}

int renameat(int a, const char *from, int b, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    LOCKED(int, REAL(renameat)(a, from, b, to));
    if (result == 0 && (absolute(old, a, from) | absolute(new, b, to))) named('R', old, new);
    DONE;
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    char old[PATH_MAX], new[PATH_MAX];
    LOCKED(int, REAL(linkat)(a, from, b, to, flags));
    if (result == 0 && (absolute(old, a, from) | absolute(new, b, to))) named('L', old, new);
    DONE;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int mkdirat(int a, const char *path, mode_t mode) {
    char name[PATH_MAX];
    struct stat found;
    LOCKED(int, REAL(mkdirat)(a, path, mode));
    if (result == 0 && absolute(name, a, path) && lstat(name, &found) == 0)
        record('C', &found, name, "", 0, "", 0);
    DONE;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int unlinkat(int a, const char *path, int flags) {
    char name[PATH_MAX];
    LOCKED(int, REAL(unlinkat)(a, path, flags));
    if (result == 0 && absolute(name, a, path)) record('U', NULL, name, "", 0, "", 0);
    DONE;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

static int opened(int a, const char *path, int flags, mode_t mode) {
    char name[PATH_MAX];
    struct stat found;
    int below = flags & (O_CREAT | O_TRUNC) && absolute(name, a, path);
    LOCKED(int, ({
        int there = below && lstat(name, &found) == 0;
        int fd = REAL(openat)(a, path, flags, mode);
        if (below && fd >= 0 && fstat(fd, &found) == 0) {
            if (!there) record('C', &found, name, "", 0, "", 0);
            else if (flags & O_TRUNC) record('T', &found, "", "", 0, "", 0);
        }
        fd;
    }));
    DONE;
}

#define MODE                                 \
    mode_t mode = 0;                         \
    if (flags & (O_CREAT | O_TMPFILE)) {     \
        va_list rest;                        \
        va_start(rest, flags);               \
        mode = va_arg(rest, mode_t);         \
        va_end(rest);                        \
    }

int open(const char *path, int flags, ...) {
    MODE return opened(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE return opened(AT_FDCWD, path, flags, mode);
}
int openat(int a, const char *path, int flags, ...) {
    MODE return opened(a, path, flags, mode);
}
int openat64(int a, const char *path, int flags, ...) {
    MODE return opened(a, path, flags, mode);
}
