FROM scratch
COPY envoy-gateway /usr/local/bin/envoy-gateway
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/envoy-gateway"]
CMD ["server"]
