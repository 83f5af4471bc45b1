/* SPDX-License-Identifier: MIT */
/* A library that does nothing, in the place of libferry-preload.so. */
extern int cli_stub;
int cli_stub;
