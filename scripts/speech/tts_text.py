"""Things to say: sentences of a grammar in English, sentences and made-up words in other languages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _split(text: str) -> list[str]:
    return text.split("|")


_NAMES = _split(
    ""
    "Bob|Pam|Mary|Ben|Paul|Emma|Tom|Sophie|Fabian|Maya|Philip|Vera|Amber|Joseph|Wendy|Hugo|Beth|George|Ruby|Victor|Zoe|Martha|Sam|Chloe|Owen"
)
_PEOPLE = _split(
    "my mother|the old farmer|our best pupil|a young woman|the baby|his boss|the shop keeper|a brave "
    "pilot|their uncle|the famous painter|a small boy|the bishop|her neighbour|the football team|the "
    "whole family|my wife|a wolf"
)
_VERBS = _split(
    ""
    "bought|found|brought|broke|moved|painted|borrowed|carried|built|saw|opened|wanted|loved|dropped|washed|put "
    "away|showed us|gave me|remembered|imagined|threw out|picked up|asked "
    "for|fixed|watched|chewed|described|hid|kept"
)
_THINGS = _split(
    "a purple lamp|the big brown box|some apple pie|a pair of blue boots|five paper cups|the map of "
    "the moon|a warm blanket|an empty bottle|the beautiful piano|a cheap umbrella|the evening paper|a "
    "bowl of pumpkin soup|the wooden bridge|three juicy pears|a heavy hammer|the wrong number|a bunch "
    "of violets|the yellow submarine|a jar of honey|the church bell|a thick sweater|the noisy mouse|a "
    "measuring tape|some fresh fish|the other half|a mirror|my room"
)
_PLACES = _split(
    "in the park|at the top of the hill|by the river|near Baltimore|on the table|before breakfast|from "
    "Monday to Friday|after a long walk|over the weekend|in the middle of the night|behind the "
    "museum|without a map|for a moment|above the shop|in the month of May|at home|under the old "
    "oak|through the window|because of the rain"
)
_OPENINGS = _split(
    "well|oh, I see|maybe|honestly|yes, of course|no way|by the way|hmm|listen|you know what|as far as "
    "I know|last week|once upon a time|on the other hand|please remember that|I believe|people say "
    "that|if you ask me|wow"
)
_QUESTIONS = _split(
    "Do you have time {p}?|What happened to {t}?|Why would {w} stay {p}?|How much is {t}?|Where did "
    "{n} put {t}?|Could you bring me {t}?|Who was with {w} {p}?|Is it true that {n} and {w} moved?|May "
    "I borrow {t}?"
)
_SHORT = _split(
    "Good morning, everybody.|Thank you very much!|My name is {n}.|Nice to meet you, {n}.|See you "
    "{p}.|I am happy to be here.|Let me show you how it works.|Stop! Put that back, please.|That is "
    "amazing.|I have absolutely no idea.|We will be back in a minute.|Can you hear me?|Sorry, you were "
    "on mute.|Let us move on to the next point.|Perfect."
)
_PAIRS = _split(
    "pat bat mat|pay bay may|pea bee me|pie buy my|cap cab cam|rope robe roam|pole bowl mole|pump "
    "bump|mop mob mom|fan van pan|safe save same|leaf leave leap|fine vine wine|ship sheep|full "
    "fool|bet bat|cot caught coat|thin fin pin|wet vet met|cheap jeep sheep|sip zip chip|light right "
    "white|boot beat boat|papa baby mama|bubble apple marble|remember member ember|simple symbol "
    "sample|apple maple map|number lumber plumber"
)
_RICH = _split(
    "The pump by the barn made a loud popping sound.|Both of my brothers play the bass in a small "
    "band.|Five brave women rode over the frozen valley.|She sells warm bread and plum jam at the "
    "market.|Put the empty cups beside the blue plate, please.|A thin breeze moved the palm leaves "
    "above us.|The judge chose a huge orange for his lunch.|My boy, you should never lie about the "
    "moon.|We were away while you wove a wool robe.|Those weather maps show heavy fog from the "
    "north.|Few people know how to bake proper pumpernickel.|Mum popped a bubble and baby Pip "
    "laughed.|Oil the old wheels, or they will squeak all evening.|Bring back my purple pyjamas before "
    "bedtime.|The green king thinks of nothing but gold rings.|Half a pound of butter makes a big "
    "batch of muffins.|Her nurse learned thirty words of Turkish on Thursday.|He threw three free "
    "throws through the hoop.|A measure of pleasure is a treasure to some.|Keep calm, climb up, and "
    "jump when I clap."
)

# real sentences, then syllables for made-up words: onsets, nuclei, codas
_OTHERS: dict[str, tuple[str, str, str, str]] = {
    "de": (
        "Guten Morgen, wie geht es Ihnen?|Meine Mutter bäckt am Abend Brot.|Peter und Paula spielen "
        "Ball im Park.|Der Apfelbaum blüht im Mai.|Bitte bringen Sie mir ein Glas Wasser.|Über den "
        "Bergen liegt schwerer Nebel.|Wir möchten morgen früh nach Bremen fahren.|Fünf hübsche Vögel "
        "sitzen auf dem Dach.|Das Pferd trabt um die Mühle.|Ich habe überhaupt keine Ahnung.|Schöne "
        "Grüße an die ganze Familie!|Zwölf Boxkämpfer jagen Viktor quer über den Deich.",
        "b p m f w l r sch t d k g n h z pf bl br st",
        "a e i o u ä ö ü ei au eu ie",
        "n m r l t ch p f|||",
    ),
    "fr": (
        "Bonjour, comment allez-vous?|Ma mère prépare un bon repas.|Le bébé boit son biberon.|Papa a "
        "mis la bouteille sur la table.|Nous avons beaucoup de problèmes.|Il pleut sur les beaux "
        "jardins de Paris.|Un chasseur sachant chasser sans son chien.|Je voudrais une baguette et "
        "deux pommes.|Qu'est-ce que vous faites demain?|La lune brille au-dessus du pont.|Où est passé "
        "mon parapluie bleu?|Merci beaucoup, à bientôt!",
        "b p m f v l r ch t d qu g n j s pl br",
        "a é i o u ou eu eau oi an on in",
        "|||r l m p che",
    ),
    "es": (
        "Buenos días, ¿cómo está usted?|Mi mamá compra pan y mantequilla.|El bebé bebe leche por la "
        "mañana.|Pablo vive en un pueblo pequeño.|Me gusta mucho bailar en la playa.|¿Dónde pusiste mi "
        "mapa?|Tres tristes tigres tragaban trigo.|El abuelo abre la puerta grande.|Vamos a comer "
        "papas bravas.|No sé nada de eso.|Muchas gracias por todo.",
        "b p m f v l r ch t d c g n j s pl br ll",
        "a e i o u ue ie ai",
        "||||n s r m",
    ),
    "it": (
        "Buongiorno, come sta?|La mamma prepara la pappa per il bambino.|Mio padre beve un bicchiere "
        "d'acqua.|Il pompiere sale sul palazzo bianco.|Vorrei una pizza e una birra, per favore.|Sopra "
        "la panca la capra campa.|Domani partiamo per Bologna.|Che bella giornata di maggio!|Non ho "
        "proprio capito niente.|Dove abita il tuo amico?",
        "b p m f v l r c t d g n s pp bb mm pr br",
        "a e i o u uo ia ai",
        "|||||n r l",
    ),
    "ru": (
        "Доброе утро, как дела?|Мама мыла раму.|Папа купил большой белый шкаф.|Бабушка пьёт чай с "
        "вареньем.|Мой брат живёт в маленьком городе.|Помогите мне, пожалуйста.|Под мостом плывут пять "
        "уток.|Я совсем ничего не понимаю.|Большое спасибо за помощь!|Вы любите музыку?|Завтра будет "
        "хорошая погода.|Шла Саша по шоссе и сосала сушку.",
        "б п м ф в л р ш т д к г н ж с пл бр х",
        "а е и о у ы я ю ё",
        "|||н м т п л",
    ),
    "cmn": (
        "ni3 hao3, hen3 gao1 xing4 ren4 shi5 ni3.|ma1 ma5 mai3 le5 bai2 cai4.|ba4 ba5 pao3 bu4 qu4 "
        "le5.|wo3 men5 yi4 qi3 chi1 fan4 ba5.|ta1 de5 peng2 you5 zhu4 zai4 bei3 jing1.|qing3 gei3 wo3 "
        "yi1 bei1 shui3.|ming2 tian1 bu2 xia4 yu3.",
        "b p m f zh sh l d t g k h j q x",
        "a1 ao3 ai4 ei2 ou1 u4 i2 an3 ang4 ian1 ing2 ong1 uo3",
        "",
    ),
    "ja": (
        ""
        "おはようございます。|わたしのなまえはまりこです。|あめがふっています。|びょういんはどこですか。|ぼくはぱんをたべます。|まいばんほんをよみます。|ありがとうございました。|こんばん、ぶらぶらあるきましょう。",
        "ま ぱ ば み ぷ ぼ わ ら し ち つ な の て か き す ふ べ め も",
        "|ん|い|う",
        "",
    ),
    "pt": (
        "Bom dia, tudo bem?|Minha mãe comprou um bolo bonito.|O bebê bebe água pela manhã.|Não sei "
        "onde pus o mapa.|Vamos para a praia amanhã.|O pombo branco pousou na ponte.|Muito obrigado "
        "por tudo.",
        "b p m f v l r ch t d c g n j s pr br",
        "a e i o u ão ei ou",
        "||||s r m",
    ),
    "pl": (
        "Dzień dobry, jak się pan ma?|Mama piecze pyszny placek.|Brat kupił biały rower.|Babcia mówi "
        "po polsku.|Proszę bardzo, oto mapa.|W maju pójdziemy na spacer.",
        "b p m f w l r sz t d k g n ż s cz pr br",
        "a e i o u y ą ę ó",
        "|||n m t p sz",
    ),
    "cs": (
        "Dobré ráno, jak se máte?|Maminka peče buchty.|Pes Bob běhá po poli.|Babička bydlí v malém "
        "městě.|Prosím, podejte mi máslo.|Příště pojedeme vlakem do Brna.|Můj bratr má velkou žlutou "
        "hlavu.|Třista třicet tři stříbrných stříkaček.|Nevím, kam jsem dal mapu.|Děkuji mockrát za "
        "pomoc.",
        "b p m f v l r š t d k h n ž s č ř pl br",
        "a e i o u á í ů ou ě",
        "|||n m t p k",
    ),
    "fi": (
        "Hyvää huomenta, mitä kuuluu?|Mamma pesee puhtaan paidan.|Poika pelaa palloa pihalla.|Minun "
        "pöydälläni on punainen kuppi.|Me menemme huomenna mökille.|En ymmärrä tätä ollenkaan.|Vanha "
        "mies istuu puun alla.|Kiitos paljon avusta!|Yöllä lumi peitti koko pellon.",
        "p m v l r t k n h s j pp mm",
        "a e i o u ä ö y aa ii uo yö äi",
        "|||n s t l",
    ),
    "ca": (
        "Bon dia, com estàs?|La mare prepara el menjar.|El meu pare beu aigua.|Pots obrir la porta, si "
        "us plau?|Vivim en un poble petit.|El gos blanc corre pel camp.|Moltes gràcies per tot.",
        "b p m f v l r x t d c g n j s pl br",
        "a e i o u ai ou",
        "|||n s r m",
    ),
    "tr": (
        "Günaydın, nasılsınız?|Annem mutfakta ekmek yapıyor.|Babam büyük bir araba aldı.|Bebek süt "
        "içiyor.|Bu köprü çok güzel.|Yarın parka gidelim mi?",
        "b p m f v l r ş t d k g n c s ç",
        "a e ı i o ö u ü",
        "|||n m r l k",
    ),
    "hi": (
        "नमस्ते, आप कैसे हैं?|मेरी माँ बाज़ार में फल "
        "खरीदती है।|बच्चा पानी पी रहा है।|मुझे बहुत भूख "
        "लगी है।|मेरा भाई बंबई में रहता है।|धन्यवाद।",
        "म प ब भ फ मा पा बी भू मे पो न ला सा रा की",
        "|||म",
        "",
    ),
}
LANGUAGES = ("en", *_OTHERS)


def _drawer(rng: np.random.Generator) -> Callable[[list[str]], str]:
    return lambda words: words[int(rng.integers(len(words)))]


def sentence(language: str, rng: np.random.Generator) -> str:
    """One sentence, or a phrase of words, to be spoken. Raises KeyError for a language not in `LANGUAGES`."""
    return _english(rng) if language == "en" else _other(language, rng)


def _english(rng: np.random.Generator) -> str:
    one = _drawer(rng)
    who = one(_NAMES) if rng.random() < 0.4 else one(_PEOPLE)
    kind = rng.random()
    if kind < 0.4:
        told = f"{who} {one(_VERBS)} {one(_THINGS)} {one(_PLACES)}"
        if rng.random() < 0.35:
            told = f"{one(_OPENINGS)}, {told}"
        if rng.random() < 0.3:
            told = (
                f"{told}, {one(['and', 'but', 'because', 'so'])} {one(_PEOPLE)} {one(_VERBS)} {one(_THINGS)}"
            )
        return told[0].upper() + told[1:] + "."
    if kind < 0.55:
        return one(_RICH)
    if kind < 0.72:
        form = one(_QUESTIONS) if rng.random() < 0.6 else one(_SHORT)
        return form.format(n=one(_NAMES), w=who, t=one(_THINGS), p=one(_PLACES))
    if kind < 0.82:
        return ", ".join(one(_PAIRS).split()) + "."
    if kind < 0.92:
        return f"{one(_NAMES)}, {int(rng.integers(1, 10 ** int(rng.integers(1, 6))))}."
    return ". ".join(one(_SHORT).format(n=who, p=one(_PLACES)) for _ in range(2))


def _other(language: str, rng: np.random.Generator) -> str:
    one = _drawer(rng)
    sentences, onsets, nuclei, codas = _OTHERS[language]
    if rng.random() < 0.6:
        return one(_split(sentences))
    inner = _split(nuclei) if "|" in nuclei else nuclei.split()
    ends = [e for part in _split(codas) for e in (part.split() or [""])]
    words = [
        "".join(one(onsets.split()) + one(inner) + one(ends) for _ in range(int(rng.integers(1, 4))))
        for _ in range(int(rng.integers(2, 7)))
    ]
    return " ".join(words) + "."
