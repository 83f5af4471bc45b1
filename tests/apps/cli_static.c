/* SPDX-License-Identifier: MIT */
/* A static program with a status of its own, also as a script's interpreter. */
int main(void)
{
	return 3;
}
