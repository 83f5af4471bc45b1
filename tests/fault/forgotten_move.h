/* SPDX-License-Identifier: MIT */
/*
 * A kernel that forgets most pages of an UFFDIO_MOVE, as Linux 6.18 does now and then
 * (fault/uffd.h): for programs that are linked with --wrap=ioctl.
 */
#ifndef FERRY_FORGOTTEN_MOVE_H
#define FERRY_FORGOTTEN_MOVE_H

/*
 * The @nth from now, 1 being the next, moves all, but tells of the first page of several
 * and EAGAIN, or of none and EEXIST.
 */
void forget_move(unsigned int nth);

#endif /* FERRY_FORGOTTEN_MOVE_H */
