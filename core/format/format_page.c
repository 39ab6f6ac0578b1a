/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/format/format.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/checksum.h"

enum {
	PAGE_MAGIC_AT = 0,
	PAGE_KIND_AT = 4,
	PAGE_VERSION_AT = 6,
	PAGE_UUID_AT = 8,
	PAGE_NUMBER_AT = 24,
	PAGE_GENERATION_AT = 32,
	PAGE_LSN_AT = 40,
	PAGE_CHECKSUM_AT = 56,
};

#define PAGE_MAGIC 0x70424c53u /* "SLBp" */

#define ROOT_ENTRY_BYTES    16u
#define SUMMARY_ENTRY_BYTES 16u
#define LEAF_ENTRY_BYTES    6u
#define REFS_ENTRY_BYTES    2u

void page_seal(uint8_t *page, const struct page_header *header, const uint8_t *uuid)
{
	memset(page, 0, PAGE_HEADER_BYTES);
	put_le32(page + PAGE_MAGIC_AT, PAGE_MAGIC);
	put_le16(page + PAGE_KIND_AT, (uint16_t)header->kind);
	put_le16(page + PAGE_VERSION_AT, FORMAT_VERSION);
	memcpy(page + PAGE_UUID_AT, uuid, FORMAT_UUID_BYTES);
	put_le64(page + PAGE_NUMBER_AT, header->number);
	put_le32(page + PAGE_GENERATION_AT, header->generation);
	put_le64(page + PAGE_LSN_AT, header->lsn);
	put_le64(page + PAGE_CHECKSUM_AT, checksum_around(page, PAGE_CHECKSUM_AT, BLOCK_BYTES));
}

uint32_t page_generation(const uint8_t *page)
{
	return get_le32(page + PAGE_GENERATION_AT);
}

static bool differs(struct why *why, const char *what, uint64_t expected, uint64_t found)
{
	if (expected == found)
		return false;
	snprintf(why->expected, sizeof(why->expected), "%s %" PRIu64, what, expected);
	snprintf(why->found, sizeof(why->found), "%" PRIu64, found);
	return true;
}

bool page_verify(const uint8_t *page, const struct page_header *expected, const uint8_t *uuid,
		 uint64_t *ret_lsn, struct why *why)
{
	uint64_t computed;

	if (get_le32(page + PAGE_MAGIC_AT) != PAGE_MAGIC) {
		snprintf(why->expected, sizeof(why->expected), "page magic %08x", PAGE_MAGIC);
		snprintf(why->found, sizeof(why->found), "%08" PRIx32,
			 get_le32(page + PAGE_MAGIC_AT));
		return false;
	}
	computed = checksum_around(page, PAGE_CHECKSUM_AT, BLOCK_BYTES);
	if (get_le64(page + PAGE_CHECKSUM_AT) != computed) {
		snprintf(why->expected, sizeof(why->expected), "checksum %016" PRIx64, computed);
		snprintf(why->found, sizeof(why->found), "%016" PRIx64,
			 get_le64(page + PAGE_CHECKSUM_AT));
		return false;
	}
	if (memcmp(page + PAGE_UUID_AT, uuid, FORMAT_UUID_BYTES) != 0) {
		snprintf(why->expected, sizeof(why->expected), "a page of this volume");
		snprintf(why->found, sizeof(why->found), "another volume's UUID");
		return false;
	}
	if (differs(why, "page version", FORMAT_VERSION, get_le16(page + PAGE_VERSION_AT)) ||
	    differs(why, "page kind", expected->kind, get_le16(page + PAGE_KIND_AT)) ||
	    differs(why, "page number", expected->number, get_le64(page + PAGE_NUMBER_AT)) ||
	    differs(why, "generation", expected->generation, get_le32(page + PAGE_GENERATION_AT)))
		return false;
	*ret_lsn = get_le64(page + PAGE_LSN_AT);
	return true;
}

/* map word: base 0-39, length 40-49, shared 50, kind 51-52; home word: place 0-39, generation
 * 40-62, written 63. A region that is no run has no base: there a LEAF says where its second slot
 * is, if that is not behind the first. Readers of the mapping need the first word only, the
 * checkpoint changes the second only. */
struct root_words root_entry_encode(const struct root_entry *entry)
{
	bool split = entry->kind == REGION_LEAF && !pbn_is_none(entry->second) &&
		     root_entry_is_split(entry);
	pbn_t base = split ? entry->second : entry->base;
	struct root_words words;

	assert(base.v <= LEAF_PBN_MASK && entry->place.v <= LEAF_PBN_MASK);
	assert(entry->length <= REGION_BLOCKS && entry->generation <= ROOT_GENERATION_MASK);
	words.map = base.v | (uint64_t)entry->length << 40 | (uint64_t)entry->shared << 50 |
		    (uint64_t)entry->kind << 51;
	words.home =
		entry->place.v | (uint64_t)entry->generation << 40 | (uint64_t)entry->written << 63;
	return words;
}

struct root_entry root_entry_decode(struct root_words words)
{
	pbn_t base = {words.map & LEAF_PBN_MASK}, place = {words.home & LEAF_PBN_MASK};
	enum region_kind kind = (enum region_kind)(words.map >> 51 & 3);
	bool split = kind == REGION_LEAF && !pbn_is_none(place) && !pbn_is_none(base);
	pbn_t next = pbn_is_none(place) ? PBN_NONE : pbn_add(place, 1);

	return (struct root_entry){
		.base = split ? PBN_NONE : base,
		.length = (uint32_t)(words.map >> 40) & 0x3ff,
		.shared = words.map >> 50 & 1,
		.kind = kind,
		.place = place,
		.second = split ? base : next,
		.generation = (uint32_t)(words.home >> 40) & ROOT_GENERATION_MASK,
		.written = words.home >> 63,
	};
}

static bool linear_valid(const struct root_entry *entry, const struct geometry *geometry,
			 uint32_t region)
{
	uint32_t last = entry->length - 1;

	if (entry->length == 0 || entry->length > geometry_region_blocks(geometry, region))
		return false;
	if (!geometry_is_data(geometry, entry->base) ||
	    !geometry_is_data(geometry, pbn_add(entry->base, last)))
		return false;
	return geometry_slab(geometry, entry->base) ==
	       geometry_slab(geometry, pbn_add(entry->base, last));
}

/* Two data blocks. Adjacent ones are of one slab, as the refs slots of the next lie between. */
static bool place_valid(const struct root_entry *entry, const struct geometry *geometry)
{
	return geometry_is_data(geometry, entry->place) &&
	       geometry_is_data(geometry, entry->second) && entry->place.v != entry->second.v;
}

bool root_entry_valid(const struct root_entry *entry, const struct geometry *geometry,
		      uint32_t region, struct why *why)
{
	snprintf(why->found, sizeof(why->found),
		 "kind %u, base %" PRIu64 ", length %" PRIu32 ", place %" PRIu64, entry->kind,
		 entry->base.v, entry->length, entry->place.v);
	if (entry->kind > REGION_LEAF) {
		snprintf(why->expected, sizeof(why->expected), "a region kind of 0 to 2");
		return false;
	}
	if (!pbn_is_none(entry->place) && !place_valid(entry, geometry)) {
		snprintf(why->expected, sizeof(why->expected), "a leaf place of two data blocks");
		return false;
	}
	if (entry->kind == REGION_LEAF && pbn_is_none(entry->place)) {
		snprintf(why->expected, sizeof(why->expected), "a leaf place for a LEAF");
		return false;
	}
	if (entry->written && pbn_is_none(entry->place)) {
		snprintf(why->expected, sizeof(why->expected), "a place where a leaf is written");
		return false;
	}
	if (entry->kind == REGION_LINEAR && !linear_valid(entry, geometry, region)) {
		snprintf(why->expected, sizeof(why->expected), "a run of data blocks in one slab");
		return false;
	}
	if (entry->kind != REGION_LINEAR && (entry->length || entry->base.v || entry->shared)) {
		snprintf(why->expected, sizeof(why->expected),
			 "no run in a region that is not LINEAR");
		return false;
	}
	return true;
}

bool features_suffice(uint64_t features_incompat, uint64_t needed, struct why *why)
{
	if ((needed & ~features_incompat) == 0)
		return true;
	snprintf(why->expected, sizeof(why->expected),
		 "nothing that needs incompatible features %" PRIx64, needed);
	snprintf(why->found, sizeof(why->found), "a superblock with features %" PRIx64,
		 features_incompat);
	return false;
}

void root_page_put(uint8_t *page, uint32_t index, struct root_words words)
{
	uint8_t *at = page + PAGE_HEADER_BYTES + index * ROOT_ENTRY_BYTES;

	assert(index < ROOT_ENTRIES);
	put_le64(at, words.map);
	put_le64(at + 8, words.home);
}

struct root_words root_page_get(const uint8_t *page, uint32_t index)
{
	const uint8_t *at = page + PAGE_HEADER_BYTES + index * ROOT_ENTRY_BYTES;

	assert(index < ROOT_ENTRIES);
	return (struct root_words){get_le64(at), get_le64(at + 8)};
}

void summary_page_put(uint8_t *page, uint32_t index, const struct summary_entry *entry)
{
	uint8_t *at = page + PAGE_HEADER_BYTES + index * SUMMARY_ENTRY_BYTES;

	assert(index < SUMMARY_ENTRIES && entry->free_blocks <= SLAB_DATA_BLOCKS);
	put_le32(at, entry->generation);
	put_le32(at + 4, entry->free_blocks);
	put_le32(at + 8, entry->shared_refs);
	put_le32(at + 12, entry->piece | (uint32_t)entry->flags << 8);
}

struct summary_entry summary_page_get(const uint8_t *page, uint32_t index)
{
	const uint8_t *at = page + PAGE_HEADER_BYTES + index * SUMMARY_ENTRY_BYTES;

	assert(index < SUMMARY_ENTRIES);
	return (struct summary_entry){get_le32(at), get_le32(at + 4), get_le32(at + 8), at[12],
				      at[13]};
}

void leaf_page_put(uint8_t *page, uint32_t index, uint64_t word)
{
	uint8_t *at = page + PAGE_HEADER_BYTES + index * LEAF_ENTRY_BYTES;

	assert(index < REGION_BLOCKS && (word & ~LEAF_KNOWN_BITS) == 0);
	put_le32(at, (uint32_t)word);
	put_le16(at + 4, (uint16_t)(word >> 32));
}

uint64_t leaf_page_get(const uint8_t *page, uint32_t index)
{
	const uint8_t *at = page + PAGE_HEADER_BYTES + index * LEAF_ENTRY_BYTES;

	assert(index < REGION_BLOCKS);
	return get_le32(at) | (uint64_t)get_le16(at + 4) << 32;
}

void refs_page_put(uint8_t *page, uint32_t index, uint16_t count)
{
	assert(index < SLAB_DATA_BLOCKS);
	put_le16(page + PAGE_HEADER_BYTES + index * REFS_ENTRY_BYTES, count);
}

uint16_t refs_page_get(const uint8_t *page, uint32_t index)
{
	assert(index < SLAB_DATA_BLOCKS);
	return get_le16(page + PAGE_HEADER_BYTES + index * REFS_ENTRY_BYTES);
}
