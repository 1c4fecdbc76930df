/* Waits until a POSIX segment was written, prints it one byte at a time, and says that it was read. */
#include "posix.h"

int main(void) {
    if (sem_wait(written()) < 0) fail("sem_wait");
    int segment = shm_open(segment_name, O_RDONLY, 0);
    if (segment < 0) fail("Can't get file descriptor...");
    char *memory = map(segment, PROT_READ);
    int same = strcmp(memory, sentence) == 0;
    for (const char *byte = memory; *byte != '\0'; byte++)
        if (write(STDOUT_FILENO, byte, 1) != 1) fail("write");
    if (sem_post(taken()) < 0) fail("sem_post");
    munmap(memory, BYTES);
    close(segment);
    return same ? 0 : 1;
}
