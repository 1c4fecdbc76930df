/* Reads the sentence out of a System V segment and removes it. Ends with 0 only if it was the right one. */
#include "sysv.h"

int main(void) {
    int id;
    char *segment = attach(&id);
    int same = strcmp(segment, sentence) == 0;
    if (segment[0] == '\0')
        printf("sorry nothing to read\n");
    else
        printf("read %s\n", segment);
    if (shmdt(segment) == -1) fail("shmdt");
    if (shmctl(id, IPC_RMID, NULL) == -1) fail("shmctl");
    return same ? 0 : 1;
}
