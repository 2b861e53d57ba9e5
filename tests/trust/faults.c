/* Makes the n-th change of a file fail: preloaded (LD_PRELOAD), armed by a call of fault_arm.

   Counts writes, syncs, renames, links, creations, removals, truncations of files, in whatever
   thread. Counting alone (at 0) tells how many there are. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int counted, at, for_good, number;

/* The `n`-th change from now on fails with errno `error`, and with `stays` all after it too. */
void fault_arm(int n, int error, int stays) {
    counted = 0;
    number = error;
    for_good = stays;
    at = n;
}

int fault_count(void) { return counted; }

static int fails(void) {
    int mine = atomic_fetch_add(&counted, 1) + 1;
    if (at > 0 && (mine == at || (for_good && mine > at))) {
        errno = number;
        return 1;
    }
    return 0;
}

static int is_file(int fd) {
    struct stat found;
    int saved = errno;
    int file = fstat(fd, &found) == 0 && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode));
    errno = saved;
    return file;
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
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    return fails() ? -1 : REAL(copy_file_range)(in, from, out, to, size, flags);
}
int fsync(int fd) { return fails() ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails() ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { return fails() ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails() ? -1 : REAL(ftruncate64)(fd, size); }
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

#define MODE(flags)                          \
    mode_t mode = 0;                         \
    if (flags & (O_CREAT | O_TMPFILE)) {     \
        va_list rest;                        \
        va_start(rest, flags);               \
        mode = va_arg(rest, mode_t);         \
        va_end(rest);                        \
    }                                        \
    if ((flags & O_CREAT) && fails()) return -1

int open(const char *path, int flags, ...) {
    MODE(flags);
    return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags);
    return REAL(open64)(path, flags, mode);
}
int openat(int a, const char *path, int flags, ...) {
    MODE(flags);
    return REAL(openat)(a, path, flags, mode);
}
int openat64(int a, const char *path, int flags, ...) {
    MODE(flags);
    return REAL(openat64)(a, path, flags, mode);
}
