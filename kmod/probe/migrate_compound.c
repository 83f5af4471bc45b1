// SPDX-License-Identifier: GPL-2.0-only
/* Does migrate_vma take a huge page whole? (since 6.19) */
#include <linux/migrate.h>

unsigned long ferry_probe(void);
unsigned long ferry_probe(void)
{
	return MIGRATE_VMA_SELECT_COMPOUND | MIGRATE_PFN_COMPOUND;
}
