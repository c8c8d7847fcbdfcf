//! Frequent words of the languages that are written in Latin letters: what tells one from another where script cannot.
//!
//! Function words first, then the vocabulary of reasoning about numbers. A word that two languages share stands in both lists and so speaks
//! against neither; abbreviations and names of functions (`sin`, `tan`, `cm`) stand in none.

use std::sync::LazyLock;

/// A set of `LATIN` languages, one bit each.
pub type Mask = u8;

/// Languages in Latin letters, in the order of the bits.
pub const LATIN: [super::Language; 4] = [super::Language::En, super::Language::Es, super::Language::Fr, super::Language::De];

const LISTS: [&str; 4] = [
    "the of and to in is it that for was on are as with his they at be this from have or by one had not but what all were when we there can \
     an your which their said if will each about how up out them then she many some so these would other into has more her two like him see \
     time could no make than first been its who now people my made over did down only way find use may long little very after called just \
     where most know get through back much before go good new our me man any day same right look also around another came come three high \
     must because does part even here well such why went large small end put again off old number still should found between own below last \
     never left along while might next sound both few those always show often together ask let us let's too he do you say am being was had \
     therefore thus hence since however wait okay ok yes hmm maybe actually check answer question problem solution solve equation equals \
     equal sum product difference divide divided multiply multiplied times plus minus add added subtract get gets give gives given \
     need needs try step steps means mean value values case cases thing sure think try which whether without within every either neither \
     already done correct wrong mistake alternatively perhaps using used uses consider first second third finally similarly note that's \
     square root triangle circle angle line point points side sides length area total final result results compute calculate calculated \
     one two four five six seven eight nine ten hundred half rate per each left right hand formula function expression term terms both \
     die war hat man fast art gut pour son plus on sale real me no era con sea ten des sum mal pan red once mayor final base car tour \
     site list rest note fin long an and also was so in so will wild arm fort chat pain main case or dire ton notes long entire most \
     more exactly above set sets least any much least until unless though although rather instead verify confirm re-check double \
     apples money dollars cost costs price hours minutes days week weeks years year left remaining altogether how it's don't isn't",
    "el la los las un una unos unas de del al y o que en es por con para se no su lo como más pero sus le ya este sí si porque esta entre \
     cuando muy sobre también me hasta hay donde quien desde todo nos durante todos uno les ni contra otros ese eso ante ellos e esto mí \
     antes algunos qué unos yo otro otras otra él tanto esa estos mucho quienes nada muchos cual poco ella estar estas algunas algo nosotros \
     mi mis tú te ti tu tus ellas son era ser soy somos fue está están estamos tiene tienen tenemos hacer hace hemos han he puede podemos \
     pueden debe debemos así entonces luego ahora bien pues además aunque mientras según cada dos tres cuatro cinco seis siete ocho nueve diez \
     resultado respuesta problema solución ecuación número números suma resta producto dividir dividido multiplicar multiplicado igual \
     primero segundo tercero siguiente paso pasos valor valores caso espera espere quizás vamos veamos decir es-decir significa sabemos \
     obtenemos obtener calcular calculamos verificar comprobar correcto correcta incorrecto total finalmente mismo misma lado lados área \
     triángulo círculo ángulo raíz cuadrado cuadrada ser sido aquí allí esto eso cuánto cuántos cuántas cuánta tenía quedan queda entero \
     final real base mayor menor parte hora horas día días año años manzanas dinero cuesta encontrar ver aplicar función",
    "le la les un une des de du et à au aux en est que qui dans pour pas sur plus par avec ne se ce cette ces son sa ses il elle on nous vous \
     ils elles je tu mais ou où donc or ni car si comme tout tous toute toutes être avoir fait faire peut peuvent pouvons doit devons sont \
     était sera avons ont a-t y aussi bien très même encore alors ainsi puis ensuite maintenant ici là lorsque quand parce puisque sans sous \
     entre vers chez leur leurs notre nos votre vos mon ma mes ton ta tes quel quelle quels quelles dont cela ceci ça c'est combien chaque \
     autre autres deux trois quatre cinq six sept huit neuf dix cent premier première deuxième troisième suivant suivante \
     résultat réponse problème solution équation nombre nombres somme produit différence diviser divisé multiplier multiplié égal égale \
     étape étapes valeur valeurs cas attendez attends peut-être voyons calculer calculons vérifier vérifions obtenons obtient trouver \
     trouvons correct juste faux final finalement total triangle cercle angle racine carré côté côtés aire ligne point points fonction \
     soit supposons sachant plus moins fois reste prix heures jours jour argent pommes il-y-a seulement rien",
    "der die das den dem des ein eine einer eines einem einen und oder aber doch nicht ist sind war waren wird werden wurde hat haben hatte \
     sein seine ich du er sie es wir ihr mich dich sich uns mein dein unser kein keine mit von zu zum zur auf aus bei nach vor über unter \
     durch für gegen ohne um an am im in ins als wie wenn dass daß weil ob so auch noch nur schon sehr mehr dann da hier dort jetzt also \
     denn damit man was wer wo warum alle alles jede jeder jedes diese dieser dieses diesem diesen welche welcher kann können muss müssen \
     soll sollte möchte gibt geben machen macht zwei drei vier fünf sechs sieben acht neun zehn erste ersten zweite dritte nächste \
     ergebnis antwort aufgabe lösung gleichung zahl zahlen summe produkt differenz geteilt mal plus minus gleich ergibt erhalten \
     schritt wert werte fall warte vielleicht prüfen überprüfen berechnen berechne richtig falsch schließlich daher deshalb somit zunächst \
     zuerst wurzel quadrat dreieck kreis winkel seite fläche viele viel insgesamt bleiben übrig stunden tage jahre geld kostet finden \
     lassen lass bedeutet wissen haben bis zwischen beide beiden wieder immer nun hundert",
];

/// Longest listed word in bytes.
const LONGEST: usize = 16;
const SLOTS: usize = 4096;

static TABLE: LazyLock<Vec<(u128, Mask)>> = LazyLock::new(|| {
    let mut table = vec![(0u128, 0u8); SLOTS];
    for (bit, list) in LISTS.iter().enumerate() {
        for word in list.split_ascii_whitespace().filter_map(|word| pack(word.as_bytes())) {
            let slot = find(&table, word);
            table[slot] = (word, table[slot].1 | 1 << bit);
        }
    }
    table
});

/// The languages in which `word` is frequent, upper and lower case alike; none for a word that no list holds.
pub fn languages(word: &[u8]) -> Mask {
    pack(word).map_or(0, |word| TABLE[find(&TABLE, word)].1)
}

/// The word as one number. Setting one bit makes lower case of ASCII letters and of accented ones in UTF-8 alike.
fn pack(word: &[u8]) -> Option<u128> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let mut bytes = [0u8; LONGEST];
    bytes[..word.len()].copy_from_slice(word);
    bytes[..word.len()].iter_mut().for_each(|byte| *byte |= 0x20);
    Some(u128::from_le_bytes(bytes))
}

/// The slot that holds `word`, or the free one where it belongs. The table is a third full at most, so there is one.
fn find(table: &[(u128, Mask)], word: u128) -> usize {
    let mixed = (word as u64 ^ (word >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut slot = (mixed >> 52) as usize % SLOTS;
    while table[slot].0 != 0 && table[slot].0 != word {
        slot = (slot + 1) % SLOTS;
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_languages_that_use_them() {
        let rows: [(&str, &[usize]); 9] = [
            ("the", &[0]),
            ("The", &[0]),
            ("ÉQUATION", &[2]),
            ("no", &[0, 1]),
            ("die", &[0, 3]),
            ("größe", &[]),
            ("", &[]),
            ("a-word-that-is-longer-than-any", &[]),
            ("für", &[3]),
        ];
        for (word, expect) in rows {
            let mask = expect.iter().map(|bit| 1u8 << bit).sum::<u8>();
            assert_eq!(languages(word.as_bytes()), mask, "{word}");
        }
        assert!(TABLE.iter().filter(|slot| slot.0 != 0).count() * 3 < SLOTS);
    }
}
