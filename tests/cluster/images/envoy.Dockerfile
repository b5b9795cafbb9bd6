FROM scratch
COPY envoy /usr/local/bin/envoy
COPY busybox /bin/sh
COPY ld-linux-x86-64.so.2 /lib64/
COPY libm.so.6 librt.so.1 libdl.so.2 libpthread.so.0 libc.so.6 /lib/x86_64-linux-gnu/
ENV PATH=/usr/local/bin:/bin
USER 65532:65532
CMD ["envoy"]
