# Holds a pod's namespaces open.
FROM scratch
COPY busybox /bin/sleep
CMD ["/bin/sleep", "2147483647"]
