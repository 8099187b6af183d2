"""Tells what one sentence or line of a revision is about, in English, German, French, Spanish and Chinese.

Four kinds are no part of an answer: it announces the revision, it describes it, it says that nothing had to change, or
it offers further changes. A sentence is looked at alone and only to its 300th character: linear time.

Left out on purpose: other languages, and a remark inside a sentence of the answer.
"""

from __future__ import annotations

import re

LONGEST = 300
"""Characters of a sentence beyond which it is no remark."""
_DECORATION = " \t\r\n*_#>`~-–—=¡¿([{)]}\"'“”‘’«»「」『』（）【】"
_ENDS = re.compile(r"[.!?][)\]\"'”’»*_]{0,3}\s+|[。！？]|\n+")
"""What ends a sentence; the sign at its start still belongs to it."""

_THING = r"(?:answer|response|reply|revision|version|text|draft|rewrite|rewording|wording|message|redraft)"
_SAID = (
    r"(?:the|this|that|my|your) (?:original |previous |current |given |above |existing |provided |assistant['’]?s? )?"
    r"(?:answer|response|reply|draft|revision)(?: above)?"
)
_CHANGE = (
    r"(?:changes?|revisions?|edits?|corrections?|rewrites?|rewriting|modifications?|adjustments?|improvements?"
    r"|amendments?|critiques?|criticisms?)"
)
_ALTER = r"(?:fix|chang|revis|correct|edit|modif|improv|adjust|rewrit|amend|critici[sz]|alter)\w*"
_NO_CHANGE = (
    rf"(?:there (?:is|are) |i (?:see|made|have made|find) )?no (?:further |more |other |additional |major "
    rf"|real )?{_CHANGE}"
    rf"(?:,? (?:or|and|nor) (?:further )?{_CHANGE})?(?: (?:is|are|was|were|seem|seems))?"
    r"(?: (?:needed|necessary|required|made|warranted|applied|suggested|to (?:be )?(?:made|make)))?"
    rf"(?: (?:to|in|for|with) (?:{_SAID}|it|this))?(?: (?:here|at all|at this time))?"
)
_NOTHING = re.compile(
    rf"{_NO_CHANGE}|.{{0,160}}?\b(?:so|therefore|hence|thus|and),? (?:{_NO_CHANGE}|i (?:left|kept|have left"
    rf"|have kept) it .{{0,40}})"
    rf"|(?:there(?: is|['’]s) |i (?:see|found|find|have) )?nothing (?:here |in (?:{_SAID}|it) )?(?:needs? |that needs "
    rf"|requires? |to )"
    rf"(?:to be |be )?{_ALTER}(?: here| in (?:{_SAID}|it))?"
    r"|(?:n/?a|unchanged|no change|not applicable|(?-i:KEEP))(?:\s?[-–—:;,(]+ ?.{0,200})?|(?-i:REVISE)|none"
    r"|(?:this |it |that |everything |all )?(?:is |looks )(?:fine|good|ok|okay|great|perfect)|(?:looks )?(?:fine|good"
    r"|great|perfect) as (?:it )?is"
    r"|(?:no (?:violations?|conflicts?|faults?|problems?)|nothing|none)(?: (?:was|were))? (?:found|identified"
    r"|detected)|not (?:needed|necessary|required)"
    r"|(?:the )?answer (?:is |stays |left )?unchanged|(?:decision|conclusion|action|result) ?: ?(?:keep|revise"
    r"|no change)|(?:final )?verdict ?: ?no change"
    rf"|{_SAID} (?:contains no|has no|is free of)\b.{{0,120}}|i would(?: not|n['’]t) change a thing"
    r"|alles (?:ist )?(?:in ordnung|gut)|rien à redire|la réponse (?:convient|me convient)|todo (?:está|es) (?:bien"
    r"|correcto)"
    r"|la respuesta es (?:correcta|adecuada|buena)|(?:die )?antwort ist gut so"
    r"|(?:很好|没问题|可以)[，,。]?(?:不用改|无需修改|不需要改)?"
    r"|none needed|same as (?:above|before|the original)|as is|keep (?:it |as )?(?:as )?(?:is|it is|it)"
    r"|keep the (?:original|answer|response)"
    r"|(?:left|kept) (?:as (?:it )?(?:is|was)|unchanged)|no issues?(?: found)?|approved"
    r"|(?:final )?verdict ?[:：]? ?\W{0,3}(?:keep|revise)"
    rf"|{_SAID} (?:already|fully|does already|is already|has already)\b.{{0,200}}"
    r"|(?:it|this) already (?:follow|compl|adher|meet|align|respect|satisf|conform|is in line)\w*.{0,150}"
    rf"|(?:{_SAID}|the text|this text) (?:is|was|seems|looks|remains|stands|appears)(?: (?:perfectly|quite|just|to be"
    rf"|completely))*"
    r" (?:fine|good|ok|okay|appropriate|acceptable|clear|unchanged|compliant|great|perfect)(?: as (?:it )?is)?"
    rf"|{_SAID} (?:does not|doesn['’]t|did not) (?:need|require|warrant)\b.{{0,40}}\b{_ALTER}.{{0,40}}"
    rf"|{_SAID} (?:needs|requires|needed) no {_CHANGE}.{{0,60}}"
    rf"|{_SAID} (?:can|may|should|could) (?:stand|stay|remain|be left|be kept)\b.{{0,40}}"
    rf"|i (?:would|will|did|do|have|had|could|can)(?: ?not|n['’]t) (?:{_ALTER}|made|make|see|find|found) "
    rf"(?:anything|it|any {_CHANGE}|any (?:issue|need|reason|problem)s?|a reason|{_SAID})\b.{{0,80}}"
    rf"|there (?:are|is|were|was) no (?:real |major |serious |apparent )?(?:issues?|problems?|conflicts?|faults?"
    rf"|violations?)\b.{{0,80}}"
    rf"|(?:i have|there are) no (?:further )?(?:{_CHANGE}|suggestions?|objections?)(?: to (?:suggest|make|propose"
    rf"|offer))?"
    rf"|i (?:do not|don['’]t) (?:think|believe|see|feel)\b.{{0,60}}\b(?:{_CHANGE}|{_ALTER}|need)\b.{{0,60}}"
    rf"|{_SAID} (?:does not|doesn['’]t) (?:conflict|violate|contradict|breach|go against)\b.{{0,100}}"
    rf"|{_SAID} (?:now |fully )?(?:meets|satisfies|complies with|adheres to|follows|respects|looks good"
    rf"|looks fine)\b.{{0,60}}"
    r"|it(?: is|['’]s) (?:fine|good|ok|okay|perfect|great) as (?:it )?is|no further action (?:is )?(?:required|needed"
    r"|necessary)"
    rf"|(?:i(?:['’]d| would|['’]ll| will| have) )?(?:keep|leave|kept|left)(?:ing)? (?:it|{_SAID}|the original"
    rf"|everything)\b.{{0,30}}?"
    r"\b(?:as (?:it )?(?:is|was)|unchanged|the same)"
    rf"|(?:.{{1,160}}[,;] )?there(?: is|['’]s| was) no (?:need|reason) (?:for|to)\b.{{0,40}}?\b(?:{_CHANGE}"
    rf"|{_ALTER})\b.{{0,40}}"
    rf"|i agree with (?:{_SAID}|the critique)\b.{{0,60}}"
    r"|(?:die|diese) antwort (?:muss|braucht) (?:nicht|keine)\b.{0,60}|(?:la|cette) réponse n['’]a pas besoin\b.{0,60}"
    # German
    r"|(?:es (?:sind|ist|waren|war) |daher |ich sehe )?keine? (?:weiteren? |weitere )?(?:änderung(?:en)?"
    r"|überarbeitung(?:en)?"
    r"|anpassung(?:en)?|korrektur(?:en)?)(?: (?:sind|ist|war|waren))?(?: (?:nötig|notwendig|erforderlich|vorgenommen))?"
    r"|(?:die|diese|meine) (?:ursprüngliche |vorherige |bisherige )?antwort (?:\w+ )?(?:bereits|schon)\b.{0,150}"
    r"|(?:die|diese) antwort (?:ist (?:in ordnung|gut|korrekt|angemessen)|kann so bleiben|bleibt unverändert).{0,40}"
    r"|(?:es gibt |hier ist )?nichts zu (?:ändern|verbessern|korrigieren|beanstanden)|unverändert|bleibt unverändert"
    # French
    r"|(?:il n['’]y a )?aucune? (?:autre )?(?:modification|changement|révision|correction)(?: n['’](?:est|a été"
    r"|était))?"
    r"(?: (?:nécessaire|requise?|apportée?|à apporter|à faire))?|pas de (?:modification|changement"
    r"|révision)s?(?: nécessaires?)?"
    r"|(?:la|cette|ma) réponse (?:\w+ )?(?:\w+ )?déjà\b.{0,150}|(?:il n['’]y a )?rien à (?:changer|modifier|corriger"
    r"|signaler)|inchangée?"
    r"|(?:la|cette) réponse (?:est (?:correcte|bonne|conforme)|peut rester telle quelle)"
    # Spanish
    r"|(?:no (?:se (?:necesitan|requieren|necesita|requiere)|son necesarios|son necesarias|es necesario|es necesaria"
    r"|hacen? falta|hay)"
    r"|sin) (?:más |realizar |hacer )?(?:ningún |ninguna )?(?:cambios?|modificaci(?:ón|ones)|revisi(?:ón|ones)"
    r"|correcci(?:ón|ones))(?: que hacer| necesari[oa]s?)?"
    r"|(?:la|esta|mi) respuesta (?:original |anterior )?ya\b.{0,150}|no hay nada que (?:cambiar|corregir|modificar)"
    r"|no (?:cambiaría|modificaría) nada.{0,40}"
    # Chinese
    r"|(?:因此|所以|该回答|原回答|此回答|回答|这个回答)?[，,]?(?:无需|无须|不需要|不用|不必|没有必要|没有需要|未作|未做|没有)(?:进行|做|任何|再)*"
    r"(?:修改|更改|改动|修订|调整|更正|变更)(?:的地方|之处)?.{0,30}|(?:保持|维持)(?:不变|原样|原文)|不变|无修改|无变化"
    r"|(?:原|该|此|这个|之前的|你的|我的)?(?:回答|答案|回复)(?:本身|已经?|本来就|完全)+(?:很|符合|遵循|满足|没有|无需|清楚|合适).{0,80}"
    r"|(?:原|该|此|这个)?(?:回答|答案)(?:没有|无)(?:问题|冲突).{0,40}",
    re.IGNORECASE,
)

_PRINCIPLE = r"\b(?:principles?|guidelines?|constitution|critiques?|feedback)\b"
_BETTER = (
    r"(?:shorter|concise|brief|clearer|neutral|direct|focus|stays?|leaves? out|leaving out|omit|avoid|remov|without"
    r"|unsupported|no longer|original|previous|principle|guideline|critique|feedback|constitution|tone|claims?|more "
    r"|less )"
)
_PART = (
    rf"(?:{_THING}|claims?|asides?|tone|sentences?|phrases?|paragraphs?|mentions?|statements?|opinions?|flattery"
    rf"|language|remarks?"
    r"|disclaimers?|references?|assertions?|principles?|guidelines?|shorter|concise|clearer|neutral|it (?:to|so|more"
    r"|by)\b)"
)
_DID = (
    r"(?:revised|rewritten|rewrote|rephrased|reworded|shortened|removed|trimmed|condensed|omitted|left out|cut|took out"
    r"|taken out|dropped|deleted|edited|corrected|adjusted|modified|softened|simplified|clarified|replaced|changed"
    r"|added|kept"
    r"|made|updated|tightened|reworked|restructured|avoided)"
)
_THANKS = re.compile(r"(?:i )?hope (?:this|that|it) helps|好的|谢谢|danke|merci|gracias", re.IGNORECASE)
_DESCRIBES = re.compile(
    rf"(?:this|the|my) (?:\w+ ){{0,2}}?(?:version|revision|rewrite|rewording|redraft|edit)\b.{{0,120}}?\b{_BETTER}"
    rf"|(?:this|the|my) (?:revised|rewritten|edited|shortened) {_THING}\b.{{0,200}}"
    rf"|(?:(?:this|the|my)(?: new)? (?:answer|response|reply)|this|it|these changes) (?:now |also |still |thus "
    rf"|therefore |better |fully "
    rf"|is |are )*(?:respect|follow|adher|align|compl[iy]|satisf|honou?r|conform"
    rf"|in line|in keeping|in accordance|consistent|reflect|uphold)\w*\b.{{0,60}}{_PRINCIPLE}"
    rf"|(?:also,? )?i(?:['’]ve| have)? (?:also |now |only |just |simply |deliberately )*{_DID}\b.{{0,80}}?\b{_PART}"
    rf"|(?:this|the|my) (?:new )?(?:answer|response|reply) (?:is |now |also |stays |still )*{_BETTER}"
    rf"|this (?:keeps|drops|removes|avoids|omits|leaves out|preserves|maintains|ensures|focuses)\b.{{0,80}}?\b{_PART}\b"
    rf"|i (?:hope|believe|think|trust) (?:that )?(?:this|the|my) (?:\w+ )?(?:version|revision|rewrite"
    rf"|revised \w+)\b.{{0,100}}"
    r"|i(?:['’]ve| have)? (?:also |now |only |just )*(?:removed|shortened|rephrased|reworded|condensed|omitted"
    r"|left out|trimmed|softened"
    r"|toned down|revised|rewrote|rewritten|avoided|cut|took out|taken out|dropped|deleted)\b.{0,120}"
    r"|[-–— ]*(?:removed|shortened|rephrased|reworded|rewrote|omitted|softened|toned down|left out|deleted)\b.{0,120}"
    r"|(?:the |all |any )?(?:\w+ ){1,4}(?:has|have|was|were) (?:been )?(?:removed|left out|cut out|omitted|rephrased"
    r"|softened|reworded|toned down|taken out)\b.{0,120}"
    r"|end of (?:the )?(?:\w+ )?(?:answer|response|revision)|(?:status|confidence) ?: ?\w+"
    rf"|in (?:this|the|my) (?:revised |new |updated |rewritten )?(?:version|revision|rewrite)\b.{{0,150}}"
    rf"|by (?:removing|omitting|leaving out|avoiding|cutting|deleting)\b.{{0,120}}?\b(?:{_THING}|principle)\b.{{0,80}}"
    # German
    r"|(?:diese|die) (?:\w+ )?(?:version|fassung|überarbeitung|formulierung|überarbeitete antwort"
    r"|neue antwort)\b.{0,100}"
    r"(?:prinzip|grundsatz|richtlinie|kürzer|knapper|klarer|entfern|verzichte|lässt|ohne|entsprich|folgt|hält|vermeide)"
    r"|(?:diese|die) antwort\b.{0,60}\b(?:entspricht|folgt|hält|respektiert)\b.{0,60}(?:prinzip|grundsatz|richtlinie)"
    r"|ich habe\b.{0,100}(?:entfernt|gekürzt|überarbeitet|umformuliert|weggelassen|gestrichen|angepasst|korrigiert"
    r"|vereinfacht)"
    # French
    r"|(?:cette|la) (?:\w+ )?(?:version|révision|reformulation|réponse révisée)\b.{0,100}"
    r"(?:princip|plus (?:court|clair|concis|br)|respect|supprim|évit|retir|conform|omet)"
    r"|(?:cette|la) réponse\b.{0,40}\b(?:respecte|suit|est conforme)\b.{0,60}(?:principe|directive)"
    r"|j['’]ai\b.{0,100}(?:supprimé|retiré|raccourci|révisé|reformulé|corrigé|réécrit|enlevé|simplifié|modifié)"
    # Spanish
    r"|(?:esta|la) (?:\w+ )?(?:versión|revisión|reformulación|respuesta revisada)\b.{0,100}"
    r"(?:principio|más (?:cort|breve|clar|concis)|respeta|elimina|evita|omite|cumple|sigue)"
    r"|(?:esta|la) respuesta\b.{0,40}\b(?:respeta|sigue|cumple)\b.{0,60}(?:principio|directriz)"
    r"|(?:también )?(?:he (?:\w+ )?(?:eliminado|quitado|acortado|revisado|reformulado|corregido|reescrito|simplificado"
    r"|modificado)"
    r"|(?:eliminé|quité|acorté|reescribí|revisé|reformulé))\b.{0,120}"
    # Chinese
    r"|(?:这个|这一|此|该|本|新|修改后的?|修订后的?)(?:版本|回答|修改|修订|答案|回复).{0,60}"
    r"(?:原则|更(?:加)?(?:简|清|短|中立)|删|去掉|省略|符合|遵循|避免|移除)"
    r"|我(?:已经?|把|将|对)?.{0,60}?(?:删除|去掉|修改|改写|缩短|简化|移除|省略|调整)"
    r"|(?:以上|上述)(?:回答|版本|答案|内容)?.{0,20}(?:去掉|删|移除|符合|遵循)"
    r"|(?:已|主要)?(?:去除|删除|去掉|移除|修改|缩短|简化|省略)了.{0,80}",
    re.IGNORECASE,
)

_OFFERS = re.compile(
    r"(?:please |just |and |feel free to |do )*(?:let me know|tell me|say so|reach out|ask|would you like|do you want"
    r"|shall i|if you(?:['’]d| would)? (?:like|want|need|wish|prefer)"
    r"|i(?:['’]m| am|['’]d be| would be) (?:happy|glad)|i (?:can|could) (?:also |certainly |of course )?(?:make"
    r"|provide|write|offer|revise|adjust|refine)"
    r"|does this (?:revision|version)|happy|feel free|is there anything else|anything else)\b.{0,120}?\b(?:chang(?:e"
    r"|es)|revis(?:e|ion|ions)|edits?"
    r"|adjust\w*|tweak\w*|"
    r"modif\w+|refine\w*|rewrite|reword|rephrase|(?:another|a different|shorter|longer) version|(?:it"
    r"|this) (?:to be )?(?:shorter|longer|different)|meets your|works? for you)\b.{0,80}"
    r"|(?:lassen sie mich wissen|lass mich wissen|sag(?:en sie)? (?:mir )?(?:gerne )?bescheid|wenn sie"
    r"|möchten sie)\b.{0,100}(?:änder|anpass|überarbeit).{0,60}"
    r"|(?:n['’]hésitez pas|dites-moi|faites-moi savoir|souhaitez-vous|si vous)\b.{0,100}(?:modif|chang|révis"
    r"|ajust).{0,60}"
    r"|(?:avísame|dime|házmelo saber|déjame saber|hágamelo saber|si (?:quieres|deseas|necesitas)"
    r"|¿quieres)\b.{0,100}(?:cambi|modific|revis|ajust).{0,60}"
    r"|(?:如果|如需|若|请).{0,40}(?:修改|调整|更改|改动).{0,40}(?:告诉|告知|随时|请|吗)?.{0,20}",
    re.IGNORECASE,
)

_OPENER = re.compile(
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok|great|no problem|thank you|thanks|understood|got it"
    r"|you(?:['’]re| are) (?:absolutely )?right|good point|alright"
    r"|natürlich|gerne|klar"
    r"|bien sûr|d['’]accord|por supuesto|claro|de acuerdo)\b[^\n.!,:]{0,40}[!.,:]\s*|(?:好的|好|当然可以|当然|没问题"
    r"|明白了?)[，,。！!：:]\s*)",
    re.IGNORECASE,
)
_ANNOUNCER = re.compile(
    r"(?:here(?:['’]s| is| are|:)?|below (?:is|are)|(?:this|that|following|what follows) is|the following|i|i['’]ve"
    r"|as (?:requested|asked|you \w+)"
    r"|based on|following|in line with|in accordance|to (?:follow|comply|respect|adhere|address)|after|given|my"
    r"|please find|let me|taking|rewritten|revised|edited|shortened"
    r"|hier|nachfolgend|unten|im folgenden|anbei|ich habe|es folgt|voici|ci-dessous|j['’]ai|aquí|a continuación"
    r"|esta es|he|se presenta)\b"
    r"|以下|下面|这是|这里|我|根据|按照|如下",
    re.IGNORECASE,
)
_REVISED = re.compile(
    rf"\b(?:revis(?:ed|ion|ing)|rewr(?:itten|ite|ote|iting)|rephrased|reworded|reworked|redraft)\b(?!.{{0,20}}\byour\b)"
    r"|\b(?:updated|improved|edited|corrected|modified|amended|shortened|condensed|simplified|concise|shorter"
    r"|brief(?:er)?|new|adjusted"
    r"|removed|without|changes|follows|following|principle|guidelines?|cleaned|polished|final|alternative"
    r"|suggested)\b.{0,80}?"
    rf"\b{_THING}\b|\b{_THING}\b.{{0,80}}?\b(?:updated|improved|edited|corrected|modified|shortened|removed|without"
    rf"|changes|follows|principle"
    r"|guidelines?|adjusted|complies|respects|avoids)\b|\bmade (?:it|this|the \w+) \w+"
    rf"|\b(?:more \w+|better) {_THING}\b|\b(?:antwort|fassung|version)\b.{{0,60}}\b(?:prinzip|grundsatz)"
    rf"|\bréponse\b.{{0,60}}\bprincipe"
    r"|\brespuesta\b.{0,60}\bprincipio|符合.{0,20}原则"
    r"|überarbeitet|korrigierte|verbesserte|gekürzt|geändert|neue (?:antwort|fassung|version)|umformuliert"
    r"|révisée?|réécrite?|corrigée?|modifiée?|améliorée?|reformulée?|nouvelle (?:réponse|version)|raccourci"
    r"|revisad[ao]|reescrit[ao]|corregid[ao]|modificad[ao]|mejorad[ao]|actualizad[ao]|reformulad[ao]"
    r"|nueva (?:respuesta|versión)|acortad[ao]"
    r"|修改|修订|改写|改进后|更新后|润色|重写|优化后|调整后|修正",
    re.IGNORECASE,
)
_ASIDE = re.compile(r" ?[(（][^()（）]{0,80}[)）]?$")
_HANDS_OVER = re.compile(
    r"(?:here(?:['’]s| is)|below is|this is|see below for) (?:the|my|a|an) (?:[\w-]+ ){0,3}?(?:answer|response|reply"
    r"|version|revision|rewrite"
    r"|attempt|result$)\b(?! to (?:your|the|this) ).{0,80}|here is how (?:the|my|it).{0,80}"
    r"|(?:without|leaving out|following|removing|by) .{0,60}, (?:the"
    r"|my) (?:answer|response|reply) (?:reads|is|would be|becomes)"
    r"|(?:aquí (?:va|está|tienes|te dejo|tiene)|esta es) (?:la|una|mi) (?:\w+ )?(?:respuesta|versión).{0,60}"
    r"|voici (?:la|une|ma) (?:\w+ )?(?:réponse|version).{0,60}|hier (?:ist|kommt|folgt|meine) ?(?:die|eine"
    r"|meine)? ?(?:\w+ )?(?:antwort|version|fassung).{0,60}"
    r"|(?:以下|下面|这)(?:是|为).{0,20}(?:回答|答案|版本|回复)",
    re.IGNORECASE,
)
"""Words that hand over an answer."""
_SHORT = re.compile(
    r"(?:sure,? )?here it is|(?:here(?:['’]s| is)|this is|below is) (?:the|my|your|a) (?:full |final "
    r"|assistant['’]?s )?"
    r"(?:answer|response|reply|rewrite)|voici|aquí (?:está|tienes)|如下|hier ist (?:die|meine) antwort|voici (?:la"
    r"|ma) réponse"
    r"|(?:aquí está|esta es) (?:la|mi) respuesta",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:(?:the|my|your|a|an|this|assistant(?:['’]?s)?|final|new|revised|rewritten|updated|edited|improved|corrected"
    r"|modified|concise|shorter"
    r"|shortened|better|next|clean|proposed|suggested|alternative|polished|amended|refined|simplified|second|first) )*"
    r"(?:answer|response|reply|revision|version|text|rewrite|rewriting|rewritten|revised|rewording|assistant"
    r"|redraft)(?: (?:text|below|\d))?"
    r"|(?:a|the|my) (?:\w+ ){0,2}(?:answer|response|reply|version)(?: (?:is|would be|should be|could be|now reads"
    r"|reads))(?: as follows)?"
    r"|ai|final|(?:draft|version|take|attempt|v) ?\d|result|重新回答|新版|最终版"
    r"|(?:final|new|revised|updated|edited|rewritten|clean|model) (?:draft|message|output|result)"
    r"|(?:(?:die|meine|neue|überarbeitete|verbesserte|korrigierte|gekürzte|endgültige|revidierte) )*(?:antwort|fassung"
    r"|überarbeitung|überarbeitet|neufassung)"
    r"|überarbeitete version|(?:(?:la|ma|nouvelle) )*(?:réponse|révision|réécriture|version|texte)(?: (?:révisée?"
    r"|corrigée?|modifiée?|finale|réécrite?|reformulée?))?"
    r"|(?:(?:la|mi|nueva) )*(?:respuesta|revisión|versión|texto)(?: (?:revisad[ao]|corregid[ao]|modificad[ao]|final"
    r"|mejorad[ao]|reescrit[ao]))?|revisad[ao]"
    r"|(?:修改|修订|改写|更新|优化|调整|改进|润色|重写|修正|新|最终)(?:后|过|版)?的?(?:回答|答案|版本|内容|回复|文本|答复|文字)?(?:如下)?|回答|答案|回复|助手",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, none blank."""
    parts, start = list[str](), 0
    for end in _ENDS.finditer(text):
        sign = text[end.start()] != "\n"
        parts.append(text[start : end.start() + sign])
        start = end.end()
    parts.append(text[start:])
    return [part for part in parts if part and part.strip(_DECORATION)]


def announces(head: str) -> bool:
    """Whether the words before a colon, or those of a heading, announce a revision or an answer."""
    bare = _bare(head)
    bare = _ASIDE.sub("", after_openers(bare))
    if _LABEL.fullmatch(bare) or _SHORT.fullmatch(bare):
        return True
    said = [after_openers(one) for one in sentences(bare)]
    if not said or not all(describes(one) or says_nothing(one) or _ANNOUNCER.match(one) for one in said[:-1]):
        return False
    return bool(_HANDS_OVER.fullmatch(said[-1]) or (_ANNOUNCER.match(said[-1]) and _REVISED.search(said[-1])))


def is_label(head: str) -> bool:
    """Whether the words are only the name of an answer: `Revised answer`."""
    return bool(_LABEL.fullmatch(_bare(head)))


def says_nothing(sentence: str) -> bool:
    """Whether it says that there is nothing to change."""
    bare = _bare(sentence)
    return len(bare) <= LONGEST and bool(_NOTHING.fullmatch(bare))


def describes(sentence: str) -> bool:
    """Whether it describes the revision."""
    bare = _bare(sentence)
    return len(bare) <= LONGEST and bool(_DESCRIBES.match(bare))


def thanks(sentence: str) -> bool:
    """Whether it is a closing that remarks can stand beside: `Hope this helps!`"""
    return bool(_THANKS.fullmatch(_bare(sentence)))


def offers(sentence: str) -> bool:
    """Whether it offers further changes."""
    bare = _bare(sentence)
    return len(bare) <= LONGEST and bool(_OFFERS.match(bare))


def after_openers(text: str) -> str:
    """`text` without `Sure!` and the like at its start."""
    for _ in range(3):
        if not (found := _OPENER.match(text)):
            break
        text = text[found.end() :]
    return text


def _bare(text: str) -> str:
    return (
        " ".join(text[: LONGEST + 60].replace("_", " ").strip(_DECORATION).split())
        .rstrip(".!?。！？:：,，;； ")
        .strip(_DECORATION)
    )
