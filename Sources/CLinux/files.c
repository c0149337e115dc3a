#define _GNU_SOURCE
#include "ctr_linux.h"
#include <errno.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define RETURN(expression) do { long r_ = (expression); return r_ < 0 ? -errno : r_; } while (0)

int ctr_syncfs(int fd) { RETURN(syncfs(fd)); }
int ctr_getrandom(void *buffer, size_t length) {
    ssize_t got = getrandom(buffer, length, 0);
    if (got < 0) return -errno;
    return (size_t)got == length ? 0 : -EIO;
}
int ctr_rename(int olddir, const char *old, int newdir, const char *new_, bool replace) {
    RETURN(renameat2(olddir, old, newdir, new_, replace ? 0 : RENAME_NOREPLACE));
}
int ctr_fsetxattr(int fd, const char *name, const void *value, size_t length) { RETURN(fsetxattr(fd, name, value, length, 0)); }
long ctr_fgetxattr(int fd, const char *name, void *value, size_t length) { RETURN(fgetxattr(fd, name, value, length)); }
long ctr_flistxattr(int fd, char *list, size_t length) { RETURN(flistxattr(fd, list, length)); }
int ctr_free_space(int fd, uint64_t *available, uint64_t *total) {
    struct statvfs status;
    if (fstatvfs(fd, &status) < 0) return -errno;
    *available = (uint64_t)status.f_bavail * status.f_frsize;
    *total = (uint64_t)status.f_blocks * status.f_frsize;
    return 0;
}
int ctr_inotify_open(void) { RETURN(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)); }
int ctr_inotify_add(int fd, const char *path, uint32_t mask) { RETURN(inotify_add_watch(fd, path, mask)); }
int ctr_inotify_remove(int fd, int watch) { RETURN(inotify_rm_watch(fd, watch)); }
int ctr_inotify(const char *path, uint32_t mask) {
    int fd = ctr_inotify_open();
    if (fd < 0) return fd;
    int watch = ctr_inotify_add(fd, path, mask);
    if (watch >= 0) return fd;
    close(fd);
    return watch;
}
