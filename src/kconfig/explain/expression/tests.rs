use super::*;

fn value(text: &str) -> (u8, u8) {
    let config = Config::parse(
        "CONFIG_MODULES=y\nCONFIG_Y=y\nCONFIG_M=m\nCONFIG_I=17\nCONFIG_H=0x20\nCONFIG_S=\"a b\"\n\
         CONFIG_64BIT=y\n",
    );
    let Span { least, most } = Expr::read(&tokens(text)).value(&config);
    (least, most)
}

#[test]
fn tristate_logic() {
    for (text, expected) in [
        ("Y", YES),
        ("M", MODULE),
        ("ABSENT", NO),
        ("m", MODULE),
        ("!M", MODULE),
        ("Y && M", MODULE),
        ("ABSENT || M", MODULE),
        ("Y && (ABSENT || !ABSENT)", YES),
        ("ABSENT && Y || Y", YES),
        ("M=y", NO),
        ("M = m", YES),
        ("M!=n", YES),
        ("ABSENT = n", YES),
        ("!ABSENT=n", NO),
        ("I >= 9", YES),
        ("I < 9", NO),
        ("H = 32", YES),
        ("S = \"a b\"", YES),
        ("ABSENT = \"\"", YES),
        ("Y # && ABSENT", YES),
        ("64BIT && !32BIT", YES),
    ] {
        assert_eq!(value(text), (expected, expected), "{text}");
    }
}

#[test]
fn a_macro_is_unknown_unless_the_rest_decides() {
    assert_eq!(value("$(cc-option,-mfoo -DX=(1))"), (NO, YES));
    assert_eq!(value("$(success,test \"$(x)\" = 1) && ABSENT"), (NO, NO));
    assert_eq!(value("M || $(cc-option,-a)"), (MODULE, YES));
    assert_eq!(value("\"$(macro)\" != Y"), (NO, YES));
}

#[test]
fn what_is_no_expression_is_unknown() {
    let deep = format!("{}Y{}", "(".repeat(5000), ")".repeat(5000));
    for text in ["", "Y &&", "(Y", "Y Y", "!", "= Y", &deep, &"!".repeat(9999)] {
        assert_eq!(value(text), (NO, YES), "{text}");
    }
}

#[test]
fn without_modules_the_constant_m_is_n() {
    assert_eq!(Expr::read(&tokens("m")).value(&Config::default()).most, NO);
}
