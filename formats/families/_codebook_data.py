"""Numbers of published codebooks, each with its source; ascending unless it says otherwise."""

from __future__ import annotations

# NF4: quantiles of a normal distribution, float32. Dettmers et al., QLoRA, arXiv:2305.14314, appendix E.
NF4 = """
    -0x1p+0 -0x1.647362p-1 -0x1.0cd660p-1 -0x1.946540p-2 -0x1.23449ap-2 -0x1.7a6a7ep-3 -0x1.74f0e2p-4 0x0p+0
    0x1.45f5fep-4 0x1.4995c6p-3 0x1.f809bap-3 0x1.5a0674p-2 0x1.c34970p-2 0x1.200f56p-1 0x1.722766p-1 0x1p+0
"""
# AF4 for blocks of 64: least mean absolute error. Yoshida, NF4 Isn't Information Theoretically Optimal,
# arXiv:2306.06965; float32 values in the order of their codes in bitsandbytes (functional.py, get_4bit_type).
AF4_BY_CODE = """
    0x1p+0 0x1.72d0b8p-1 0x1.1c2406p-1 0x1.b3daaap-2 0x1.445bdcp-2 0x1.c1c454p-3 0x1.08e5f2p-3 0x1.5e0ebep-5
    0x0p+0 -0x1.944282p-5 -0x1.32d756p-3 -0x1.0638aap-2 -0x1.7ea9eep-2 -0x1.065e32p-1 -0x1.6389b8p-1 -0x1p+0
"""
# bitsandbytes FP4, in twelfths, by the three magnitude bits of a code (functional.py, get_4bit_type).
BNB_FP4_TWELFTHS = (0, 0.0625, 8, 12, 4, 6, 2, 3)

# Quantiles of Student's t with nu degrees of freedom. Dotzel et al., Learning from Students, arXiv:2405.03103;
# github.com/cornell-zhang/llm-datatypes, weight_only.py, SF4_<nu> and SF3_<nu>. The values besides 0.
STUDENT4 = {
    3: "-1 -.575725 -.403755 -.29162 -.204868 -.131054 -.064036"
    " .055934 .113835 .176078 .246078 .329642 .438727 .60598 1",
    4: "-1 -.608729 -.435845 -.318393 -.225229 -.144689 -.070863"
    " .061908 .125773 .193936 .269711 .358617 .471724 .638231 1",
    5: "-1 -.627781 -.454736 -.334331 -.237434 -.152899 -.074982"
    " .065513 .132965 .204661 .283835 .375805 .491076 .656781 1",
    6: "-1 -.640101 -.467104 -.344838 -.245517 -.15835 -.077722"
    " .067911 .137742 .211771 .293169 .387111 .503714 .66875 1",
    7: "-1 -.648695668605137 -.4758049192191136 -.35226650560941064 -.25124728719118344 -.16222176644114206"
    " -.07967003587244491 .06961628484673037 .1411376777420972 .21681690757912492 .2997785136806453"
    " .39509153065438735 .5125912352606964 .6770872505232854 1",
}
STUDENT3 = {
    3: "-1 -.3622475096628733 -.15466881612248634 .11383526480516333 .24607773854836362 .43872699492795214 1",
    4: "-1 -.39278935395019254 -.1705619364387109 .1257725217978133 .26971116287994534 .4717241438815071 1",
    5: "-1 -.41084770299806544 -.1801188154332576 .1329647268004446 .2838347036415534 .49107557131011725 1",
    6: "-1 -.4227024811287854 -.18645957091951085 .1377424733823289 .29316883983286 .5037142212421039 1",
}
#: Probability of the outermost quantile of NF4 and SF4 (bitsandbytes, functional.py, create_normal_map).
OUTERMOST_PROBABILITY = 0.9677083

# Other rows of llm-datatypes' table (weight_only.py, FLOAT_MAPPING), with a sentence each.
LLM_DATATYPES = {
    "nf3": (
        "-1 -.5350227084855379 -.24693143181157517 0 .18333748033548752 .3819939543209139 .6229857417143423 1",
        "NormalFloat with 3 bits",
    ),
    "nf3_nz": (
        "-1 -.5840457615163138 -.3225133196607414 -.10387883073852357"
        " .10387883073852357 .3225133196607414 .5840457615163137 1",
        "NormalFloat with 3 bits, symmetric, no zero",
    ),
    "apot4": ("-1 -.8 -.6 -.4 -.3 -.2 -.1 0 .1 .2 .3 .4 .6 .8 1", "sums of two powers of two"),
    "apot4_sp": ("-1 -.8 -.6 -.4 -.3 -.2 -.1 0 .1 .2 .3 .4 .5 .6 .8 1", "APoT4 and 0.5 in the code of -0"),
    "fp4_range": ("-6 -4 -3 -2 -1.5 -1 -.5 0 .5 1 1.5 2 3 4 6 8", "E2M1 and 8 in the code of -0 (super-range)"),
    "fp4_prec1": ("-6 -4 -3 -2 -1.5 -1 -.5 0 .5 1 1.5 2 2.5 3 4 6", "E2M1 and 2.5 in the code of -0"),
    "fp4_prec2": ("-6 -4 -3 -2 -1.5 -1 -.5 0 .5 1 1.5 2 3 4 5 6", "E2M1 and 5 in the code of -0 (super-precision)"),
    "fp4_no_sub": ("-6 -4 -3 -2 -1.5 -1 -.75 0 .75 1 1.5 2 3 4 6", "E2M1 with 0.75 for its subnormal 0.5"),
    "fp4_log": ("-16 -8 -4 -2 -1 -.5 -.25 0 .25 .5 1 2 4 8 16", "powers of two"),
    "fp3_log": ("-4 -2 -1 0 1 2 4", "powers of two with 3 bits, BitMoD's FP3"),
    "mokey": ("-16 -8 -6 -4 -3 -2 -1 0 1 2 3 4 6 8 16", "Mokey's dictionary"),
    "denorm4": ("-7 -6 -5 -4 -3 -2 -1 -.5 0 .5 1 2 3 4 5 6", "integers and +-1/2 for -8 and 7"),
}
#: Special values of BitMoD: extra resolution and extra range. Chen et al., BitMoD, HPCA 2025, arXiv:2411.11745;
#: github.com/abdelfattah-lab/BitMoD-HPCA-25, quant_weight.py: the base grid's magnitudes, then the two of each kind.
BITMOD = {3: ((0, 1, 2, 4), (3, -3), (6, -6)), 4: ((0, 1, 2, 3, 4, 6, 8, 12), (10, -10), (16, -16))}
#: Bounds that BitMoD's code puts on a scale (same file).
BITMOD_SCALES = (1e-5, 1e4)
