FROM scratch
COPY echo /echo
USER 65532:65532
ENTRYPOINT ["/echo"]
