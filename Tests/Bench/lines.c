// lines BYTES CHUNK: writes BYTES bytes of 80-byte lines, CHUNK bytes at a time.
#include <stdlib.h>
#include <unistd.h>

static char buffer[1 << 20];

int main(int count, char **arguments) {
    if (count != 3) return 2;
    long long left = atoll(arguments[1]);
    size_t chunk = (size_t)atoll(arguments[2]);
    if (chunk == 0 || chunk > sizeof buffer) return 2;
    for (size_t i = 0; i < chunk; i++) buffer[i] = (char)(i % 80 == 79 ? '\n' : 'a' + i % 26);
    while (left > 0) {
        size_t wanted = left < (long long)chunk ? (size_t)left : chunk, at = 0;
        while (at < wanted) {
            ssize_t written = write(1, buffer + at, wanted - at);
            if (written <= 0) return 1;
            at += (size_t)written;
        }
        left -= (long long)wanted;
    }
    return 0;
}
