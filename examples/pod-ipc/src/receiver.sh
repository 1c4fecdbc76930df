#!/bin/sh
# Receives, and tries again until it has worked.
until echo "receive starts" && /src/sysv/receiver; do
    echo "this is an unlimited loop, waiting 5s"
    sleep 5
done
