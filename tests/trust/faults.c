/* Makes the n-th change of a file, or the n-th reading of one, fail: preloaded (LD_PRELOAD), armed
   by a call of fault_arm, or from outside: then $FAULTS_CONTROL is a file that holds the `plan`
   below, for the process and its forks.

   Counts writes, syncs, renames, links, creations, removals, truncations of files, in whatever
   thread; or the reads of files below $FAULTS_BELOW. Counting alone (at 0) tells how many there
   are. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static struct plan {
    atomic_int counted, at, stays, number, reads;
} own, *plan = &own;

__attribute__((constructor)) static void share(void) {
    const char *path = getenv("FAULTS_CONTROL");
    int fd = path ? open(path, O_RDWR) : -1;
    if (fd >= 0) plan = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

/* The `n`-th change (or reading) from now on fails with errno `error`; with `stays` all after it. */
void fault_arm(int n, int error, int stays, int reads) {
    plan->counted = 0;
    plan->number = error;
    plan->stays = stays;
    plan->reads = reads;
    plan->at = n;
}

int fault_count(void) { return plan->counted; }

static int due(int reads) {
    if (plan->reads != reads) return 0;
    int mine = atomic_fetch_add(&plan->counted, 1) + 1, at = plan->at;
    if (at > 0 && (mine == at || (plan->stays && mine > at))) {
        errno = plan->number;
        return 1;
    }
    return 0;
}

static int fails(void) { return due(0); }

static int is_file(int fd) {
    struct stat found;
    int saved = errno;
    int file = fstat(fd, &found) == 0 && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode));
    errno = saved;
    return file;
}

static int is_below(const char *path) {
    const char *below = getenv("FAULTS_BELOW");
    return below && strncmp(path, below, strlen(below)) == 0;
}

/* Whether reading this one fails: a file or folder below $FAULTS_BELOW. */
static int fails_to_read(int fd) {
    static _Thread_local char link[40], path[4096];
    int saved = errno;
    if (!plan->reads || !is_file(fd)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path) && due(1);
}

/* Whether looking at a name fails. */
static int fails_to_look(int a, const char *path) {
    if (!plan->reads) return 0;
    if (path[0] == '/') return is_below(path) && due(1);
    return a != AT_FDCWD && fails_to_read(a);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
    return is_file(fd) && fails() ? -1 : REAL(write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return is_file(fd) && fails() ? -1 : REAL(pwrite)(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return is_file(fd) && fails() ? -1 : REAL(pwrite64)(fd, data, size, offset);
}
ssize_t read(int fd, void *data, size_t size) {
    return fails_to_read(fd) ? -1 : REAL(read)(fd, data, size);
}
ssize_t pread(int fd, void *data, size_t size, off_t offset) {
    return fails_to_read(fd) ? -1 : REAL(pread)(fd, data, size, offset);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) {
    return fails_to_read(fd) ? -1 : REAL(pread64)(fd, data, size, offset);
}
ssize_t preadv64(int fd, const struct iovec *data, int count, off64_t offset) {
    return fails_to_read(fd) ? -1 : REAL(preadv64)(fd, data, count, offset);
}
ssize_t preadv64v2(int fd, const struct iovec *data, int count, off64_t offset, int flags) {
    return fails_to_read(fd) ? -1 : REAL(preadv64v2)(fd, data, count, offset, flags);
}
struct dirent64 *readdir64(DIR *folder) {
    return fails_to_read(dirfd(folder)) ? NULL : REAL(readdir64)(folder);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    return fails() ? -1 : REAL(copy_file_range)(in, from, out, to, size, flags);
}
int fsync(int fd) { return fails() ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails() ? -1 : REAL(fdatasync)(fd); }
int fchmod(int fd, mode_t mode) { return fails() ? -1 : REAL(fchmod)(fd, mode); }
int fchmodat(int a, const char *path, mode_t mode, int flags) {
    return fails() ? -1 : REAL(fchmodat)(a, path, mode, flags);
}
int utimensat(int a, const char *path, const struct timespec times[2], int flags) {
    return fails() ? -1 : REAL(utimensat)(a, path, times, flags);
}
int futimens(int fd, const struct timespec times[2]) {
    return fails() ? -1 : REAL(futimens)(fd, times);
}
int ftruncate(int fd, off_t size) { return fails() ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails() ? -1 : REAL(ftruncate64)(fd, size); }
int truncate64(const char *path, off_t size) { return fails() ? -1 : REAL(truncate64)(path, size); }
int fallocate64(int fd, int mode, off64_t offset, off64_t size) {
    return fails() ? -1 : REAL(fallocate64)(fd, mode, offset, size);
}
int rename(const char *from, const char *to) { return fails() ? -1 : REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    return fails() ? -1 : REAL(renameat)(a, from, b, to);
}
int link(const char *from, const char *to) { return fails() ? -1 : REAL(link)(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    return fails() ? -1 : REAL(linkat)(a, from, b, to, flags);
}
int unlink(const char *path) { return fails() ? -1 : REAL(unlink)(path); }
int unlinkat(int a, const char *path, int flags) {
    return fails() ? -1 : REAL(unlinkat)(a, path, flags);
}
int rmdir(const char *path) { return fails() ? -1 : REAL(rmdir)(path); }
int syncfs(int fd) { return fails() ? -1 : REAL(syncfs)(fd); }
int mkdir(const char *path, mode_t mode) { return fails() ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int a, const char *path, mode_t mode) {
    return fails() ? -1 : REAL(mkdirat)(a, path, mode);
}

#define MODE(at, path, flags)                \
    mode_t mode = 0;                         \
    if (flags & (O_CREAT | O_TMPFILE)) {     \
        va_list rest;                        \
        va_start(rest, flags);               \
        mode = va_arg(rest, mode_t);         \
        va_end(rest);                        \
    }                                        \
    if ((flags & O_CREAT) ? fails() : fails_to_look(at, path)) return -1

int open(const char *path, int flags, ...) {
    MODE(AT_FDCWD, path, flags);
    return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(AT_FDCWD, path, flags);
    return REAL(open64)(path, flags, mode);
}
int openat(int a, const char *path, int flags, ...) {
    MODE(a, path, flags);
    return REAL(openat)(a, path, flags, mode);
}
int openat64(int a, const char *path, int flags, ...) {
    MODE(a, path, flags);
    return REAL(openat64)(a, path, flags, mode);
}
int fstatat64(int a, const char *path, struct stat64 *found, int flags) {
    return fails_to_look(a, path) ? -1 : REAL(fstatat64)(a, path, found, flags);
}
