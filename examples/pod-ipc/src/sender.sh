#!/bin/sh
# Makes the file whose identity names the segment, and sends.
echo "sender starts"
touch "$FTOK_PATH"
exec /src/sysv/sender
