/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places between two steps that belong together, where tests have a program killed or halted: with
 * MSB_DIE_AT=NAME in its environment it gets SIGKILL at that point, with MSB_HALT_AT=NAME SIGSTOP.
 * Who can set that could do so anyway.
 */
#ifndef BASE_POINT_H
#define BASE_POINT_H

void point(const char *name);

#endif
