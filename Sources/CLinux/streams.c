#define _GNU_SOURCE
#include "ctr_linux.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#define RETURN(call)                       \
    do {                                   \
        long result_ = (long)(call);       \
        return result_ < 0 ? -errno : result_; \
    } while (0)

long ctr_splice(int from, int to, size_t length, unsigned flags) { RETURN(splice(from, NULL, to, NULL, length, flags)); }
long ctr_sendfile(int to, int from, size_t length) { RETURN(sendfile(to, from, NULL, length)); }
int ctr_punch_hole(int fd, int64_t offset, int64_t length) {
    RETURN(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
}
int ctr_unread(int pipe) {
    int bytes = 0;
    return ioctl(pipe, FIONREAD, &bytes) < 0 ? -errno : bytes;
}
int ctr_pipe_size(int pipe) { RETURN(fcntl(pipe, F_GETPIPE_SZ)); }
int ctr_seal_size(int memfd) { RETURN(fcntl(memfd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK)); }
int ctr_seal(int memfd) { RETURN(fcntl(memfd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE)); }
int ctr_seals_size(int memfd) {
    int seals = fcntl(memfd, F_GET_SEALS);
    return seals < 0 ? -errno : (seals & F_SEAL_GROW) != 0;
}
int ctr_pty_end_of_file(int terminal) {
    struct termios settings;
    if (ioctl(terminal, TCGETS, &settings) < 0) return -errno;
    return (settings.c_lflag & ICANON) ? settings.c_cc[VEOF] : 4;
}
int ctr_queue_size(int socket, int bytes) {
    /* Beyond the host's limit where the caller may, up to it where not. */
    if (setsockopt(socket, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) == 0) return 0;
    RETURN(setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes));
}

enum { MOST = 16 };
long ctr_send_fds(int socket, const void *data, size_t length, const int *fds, int count, int flags) {
    struct iovec part = {.iov_base = (void *)data, .iov_len = length};
    union { char room[CMSG_SPACE(MOST * sizeof(int))]; struct cmsghdr align; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count < 0 || count > MOST) return -EINVAL;
    if (count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    RETURN(sendmsg(socket, &message, flags | MSG_NOSIGNAL));
}
long ctr_recv_fds(int socket, void *data, size_t length, int *fds, int *count, int flags) {
    struct iovec part = {.iov_base = data, .iov_len = length};
    union { char room[CMSG_SPACE(MOST * sizeof(int))]; struct cmsghdr align; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    int room = *count, got_fds = 0;
    *count = 0;
    ssize_t got = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    if (got < 0) return -errno;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        int many = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < many; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
            if (got_fds < room) fds[got_fds++] = fd;
            else close(fd);
        }
    }
    *count = got_fds;
    return got;
}
