// SPDX-License-Identifier: Apache-2.0
/*
 * fixdep DEPFILE TARGET SAVED: prints the .cmd file of TARGET, for make to read.
 *
 * Every object includes autoconf.h, so by the compiler's list of headers any
 * change to the configuration would rebuild everything. This takes autoconf.h
 * out of the list and puts in the include/config/ file of each symbol that the
 * sources of TARGET mention. SAVED is the line with the command, kept as it is.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	size_t size = 0, room = 4096, got;
	char *text = malloc(room);

	if (!file || !text) {
		perror(path);
		exit(2);
	}
	while ((got = fread(text + size, 1, room - size - 1, file)) > 0) {
		size += got;
		if (size + 1 == room && !(text = realloc(text, room *= 2))) {
			perror("fixdep");
			exit(2);
		}
	}
	fclose(file);
	text[size] = '\0';
	return text;
}

/* The symbols that were printed already; a dozen of them, so a list will do. */
static char *seen[512];
static size_t seen_count;

static void print_symbol(const char *name, size_t length)
{
	size_t i;

	/* CONFIG_X_MODULE is the m of CONFIG_X. */
	if (length > 7 && !strncmp(name + length - 7, "_MODULE", 7))
		length -= 7;
	for (i = 0; i < seen_count; i++)
		if (strlen(seen[i]) == length && !strncmp(seen[i], name, length))
			return;
	if (seen_count < sizeof(seen) / sizeof(seen[0]))
		seen[seen_count++] = strndup(name, length);
	printf(" \\\n  $(wildcard include/config/%.*s)", (int)length, name);
}

static void print_symbols_of(const char *path)
{
	char *text = read_file(path), *at = text;

	while ((at = strstr(at, "CONFIG_"))) {
		int whole_word = at == text || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');
		size_t length = 0;

		at += strlen("CONFIG_");
		while (isalnum((unsigned char)at[length]) || at[length] == '_')
			length++;
		if (whole_word && length)
			print_symbol(at, length);
		at += length;
	}
	free(text);
}

int main(int argc, char **argv)
{
	char *deps, *copy, *word;

	if (argc != 4) {
		fprintf(stderr, "usage: fixdep DEPFILE TARGET SAVED\n");
		return 1;
	}
	deps = read_file(argv[1]);
	deps = strchr(deps, ':');
	if (!deps) {
		fprintf(stderr, "fixdep: %s: no rule in it\n", argv[1]);
		return 2;
	}
	copy = strdup(++deps);

	printf("%s\n\n%s:", argv[3], argv[2]);
	for (word = strtok(deps, " \\\n"); word; word = strtok(NULL, " \\\n")) {
		if (!strcmp(word, "include/generated/autoconf.h"))
			continue;
		printf(" \\\n  %s", word);
		/* Generated files change when what they were made of does. */
		if (strncmp(word, "include/generated/", 18))
			print_symbols_of(word);
	}
	/* A header that is gone must not stop make: it rebuilds what had included it. */
	printf("\n\n");
	for (word = strtok(copy, " \\\n"); word; word = strtok(NULL, " \\\n"))
		if (strcmp(word, "include/generated/autoconf.h") && strncmp(word, "include/generated/", 18))
			printf("%s:\n", word);
	return 0;
}
