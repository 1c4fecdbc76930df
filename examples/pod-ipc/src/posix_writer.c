/* Writes the sentence into a POSIX segment, waits until it was read, and takes everything away. */
#include "posix.h"

int main(void) {
    int segment = shm_open(segment_name, O_RDWR | O_CREAT, 0644);
    if (segment < 0) fail("Can't open shared mem segment...");
    if (ftruncate(segment, BYTES) < 0) fail("ftruncate");
    char *memory = map(segment, PROT_READ | PROT_WRITE);
    fprintf(stderr, "shared mem address: %p [0..%d]\n", (void *)memory, BYTES - 1);
    fprintf(stderr, "backing file:       /dev/shm%s\n", segment_name);
    strcpy(memory, sentence);
    if (sem_post(written()) < 0) fail("sem_post");
    if (sem_wait(taken()) < 0) fail("sem_wait");
    munmap(memory, BYTES);
    close(segment);
    shm_unlink(segment_name);
    sem_unlink("/mysemaphore");
    sem_unlink("/mysemaphore.taken");
    return 0;
}
