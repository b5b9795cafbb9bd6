FROM scratch
ADD base.tar /
CMD ["/bin/bash"]
