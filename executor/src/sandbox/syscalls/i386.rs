//! The x86 table of an x86_64 kernel: programs of 32 bits run on it too, and must not get around the profile (R1.8.10).

/// Numbers that the profile always allows, ends inclusive.
pub(in crate::sandbox) const ALLOWED: &[(u32, u32)] = &[
    (0, 16),
    (19, 20),
    (23, 24),
    (26, 27),
    (29, 30),
    (33, 33),
    (36, 43),
    (45, 47),
    (49, 50),
    (54, 55),
    (57, 57),
    (60, 60),
    (63, 66),
    (70, 71),
    (75, 78),
    (80, 83),
    (85, 85),
    (90, 97),
    (99, 100),
    (102, 102),
    (104, 108),
    (114, 114),
    (116, 119),
    (122, 126),
    (132, 133),
    (138, 148),
    (150, 165),
    (168, 168),
    (170, 187),
    (190, 216),
    (218, 221),
    (224, 250),
    (252, 252),
    (254, 263),
    (265, 272),
    (277, 282),
    (284, 284),
    (289, 293),
    (295, 309),
    (311, 316),
    (318, 335),
    (337, 337),
    (339, 341),
    (343, 345),
    (347, 348),
    (351, 356),
    (358, 358),
    (360, 373),
    (375, 383),
    (385, 386),
    (393, 403),
    (405, 414),
    (416, 424),
    (434, 434),
    (436, 437),
    (439, 439),
    (441, 441),
    (444, 449),
    (451, 458),
    (462, 466),
];

pub(in crate::sandbox) const CLONE: u32 = 120;
pub(in crate::sandbox) const CLONE3: u32 = 435;
pub(in crate::sandbox) const SOCKET: u32 = 359;
pub(in crate::sandbox) const PERSONALITY: u32 = 136;

/// Calls that change an owner or a user.
pub(in crate::sandbox) const OWNERSHIP: &[u32] =
    &[182, 16, 95, 298, 212, 198, 207, 81, 206, 23, 213, 46, 214, 70, 203, 71, 204, 164, 208, 170, 210];

/// Calls that come with a capability (R1.8.9).
pub(in crate::sandbox) const GATED: &[(&str, &[u32])] = &[
    ("DAC_READ_SEARCH", &[342]),
    (
        "SYS_ADMIN",
        &[357, 338, 431, 432, 430, 433, 253, 21, 442, 429, 428, 336, 131, 443, 121, 74, 346, 103, 22, 52, 310],
    ),
    ("SYS_BOOT", &[88]),
    ("SYS_CHROOT", &[61]),
    ("SYS_MODULE", &[129, 128, 350]),
    ("SYS_PACCT", &[51]),
    ("SYS_PTRACE", &[349, 438, 440]),
    ("SYS_RAWIO", &[110, 101]),
    ("SYS_TIME", &[79, 25, 264, 404]),
    ("SYS_TTY_CONFIG", &[111]),
    ("SYS_NICE", &[275, 274, 276, 450]),
    ("SYSLOG", &[103]),
    ("BPF", &[357]),
    ("PERFMON", &[336]),
];
